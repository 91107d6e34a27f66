//! A region as an operator of tract: first one whose shapes are to be found out, then one that runs.

use super::partition::{INDEX, REGION};
use ckaad_int8::Isa;
use ckaad_int8::pool::Pool;
use ckaad_int8::program::{self, Program};
use ckaad_int8::region::Region;
use ckaad_int8::run::Scratch;
use ckaad_int8::shape::ElementType;
use std::sync::{Arc, Mutex};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// Makes tract's ONNX reader understand the nodes that stand for regions. The reader only leaves a place for each: what
/// is registered with it cannot hold anything. [`fill`] puts the regions there.
pub fn register(reader: &mut tract_onnx::Onnx) {
    reader.op_register.insert(REGION, |_, node| Ok((expand(Place::of(node)), vec![])));
}

/// Puts each region where its node is.
///
/// # Errors
/// When a node has a number that no region has.
pub fn fill(model: &mut InferenceModel, regions: Vec<Region>, pool: &Pool) -> TractResult<()> {
    let mut regions: Vec<Option<Region>> = regions.into_iter().map(Some).collect();
    for node in &mut model.nodes {
        let expansion = node.op_as::<Box<dyn Expansion>>();
        let Some(place) = expansion.and_then(|e| (**e).as_any().downcast_ref::<Place>()) else { continue };
        let region = place.0.and_then(|index| regions.get_mut(index)?.take());
        let region = region.ok_or_else(|| format_err!("{REGION} with the number of no region"))?;
        node.op = expand(Unshaped::new(region, node.inputs.len(), pool.clone()));
    }
    Ok(())
}

/// Where a region belongs, by its number.
#[derive(Clone, Debug)]
struct Place(Option<usize>);

impl Place {
    fn of(node: &NodeProto) -> Place {
        let index = node.attribute.iter().find(|a| a.name == INDEX);
        Place(index.and_then(|a| usize::try_from(a.i).ok()))
    }
}

impl Expansion for Place {
    fn name(&self) -> StaticName {
        REGION.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        _: &mut Solver<'r>,
        _: &'p [TensorProxy],
        _: &'p [TensorProxy],
    ) -> InferenceResult {
        bail!("{REGION} without its region")
    }

    fn wire(&self, _: &str, _: &mut TypedModel, _: &[OutletId]) -> TractResult<TVec<OutletId>> {
        bail!("{REGION} without its region")
    }
}

/// A region whose shapes are to be found out.
#[derive(Clone, Debug)]
struct Unshaped {
    region: Arc<Region>,
    inputs: Vec<DatumType>,
    pool: Pool,
}

fn datum_type(element: ElementType) -> DatumType {
    match element {
        ElementType::U8 => DatumType::U8,
        ElementType::I8 => DatumType::I8,
        ElementType::F32 => DatumType::F32,
    }
}

impl Unshaped {
    fn new(region: Region, inputs: usize, pool: Pool) -> Unshaped {
        let mut types = vec![DatumType::U8; inputs];
        for input in region.nodes().iter().filter_map(|node| node.op.input()) {
            if let Some(kind) = types.get_mut(input.index) {
                *kind = datum_type(input.element);
            }
        }
        Unshaped { region: Arc::new(region), inputs: types, pool }
    }

    /// `[1,C,H,W]` and the type of each output.
    fn outputs(&self, inputs: &[TVec<TDim>]) -> TractResult<Vec<([usize; 4], DatumType)>> {
        let outputs = program::outputs(&self.region, &concrete(inputs)?).map_err(|e| format_err!("{e}"))?;
        Ok(outputs.iter().map(output).collect())
    }
}

/// `[1,C,H,W]` and the type of a result.
fn output(output: &program::Output) -> ([usize; 4], DatumType) {
    let [c, h, w] = output.shape;
    ([1, c, h, w], datum_type(output.element))
}

fn concrete(shapes: &[TVec<TDim>]) -> TractResult<Vec<[usize; 4]>> {
    let one = |shape: &TVec<TDim>| -> TractResult<[usize; 4]> {
        let dims: Vec<usize> = shape.iter().map(|d| Ok(d.to_usize()?)).collect::<TractResult<_>>()?;
        dims.try_into().map_err(|dims| format_err!("4 dimensions expected, found {dims:?}"))
    };
    shapes.iter().map(one).collect()
}

impl Expansion for Unshaped {
    fn name(&self) -> StaticName {
        REGION.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.region.outputs().len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.inputs.len())?;
        check_output_arity(outputs, self.region.outputs().len())?;
        for (input, kind) in inputs.iter().zip(&self.inputs) {
            s.equals(&input.datum_type, *kind)?;
        }
        s.given_all(inputs.iter().map(|i| &i.shape), move |s, shapes| {
            for ((shape, kind), output) in self.outputs(&shapes)?.into_iter().zip(outputs) {
                s.equals(&output.datum_type, kind)?;
                s.equals(&output.shape, shape.iter().map(|d| d.to_dim()).collect::<TVec<TDim>>())?;
            }
            Ok(())
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let shapes: Vec<TVec<TDim>> =
            inputs.iter().map(|&i| Ok(model.outlet_fact(i)?.shape.to_tvec())).collect::<TractResult<_>>()?;
        let program = Program::compile(&self.region, &concrete(&shapes)?, Isa::best(), self.pool.threads());
        let program = program.map_err(|e| format_err!("{e}"))?;
        let shaped = Int8 {
            outputs: program.outputs().iter().map(output).collect(),
            program: Arc::new(program),
            pool: self.pool.clone(),
            scratch: Arc::new(Mutex::new(vec![])),
        };
        model.wire_node(prefix, shaped, inputs)
    }
}

/// A compiled region. Clones share weights, threads and memory.
#[derive(Clone)]
struct Int8 {
    program: Arc<Program>,
    outputs: Vec<([usize; 4], DatumType)>,
    pool: Pool,
    /// Memory of runs that are over; the next run takes one.
    scratch: Arc<Mutex<Vec<Scratch>>>,
}

impl std::fmt::Debug for Int8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{REGION} {:?}", self.outputs)
    }
}

impl PartialEq for Int8 {
    fn eq(&self, other: &Int8) -> bool {
        Arc::ptr_eq(&self.program, &other.program)
    }
}

impl Eq for Int8 {}

impl Op for Int8 {
    fn name(&self) -> StaticName {
        REGION.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Int8 {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let bytes: TVec<&[u8]> = inputs.iter().map(|i| i.as_bytes()).collect();
        let mut results: TVec<Tensor> =
            self.outputs.iter().map(|(shape, kind)| Tensor::zero_dt(*kind, shape)).collect::<TractResult<_>>()?;
        let mut targets: TVec<&mut [u8]> = results.iter_mut().map(Tensor::as_bytes_mut).collect();
        let free = self.scratch.lock().map(|mut all| all.pop()).unwrap_or_default();
        let mut scratch = free.unwrap_or_else(|| self.program.scratch());
        self.program.run(&self.pool, &mut scratch, &bytes, &mut targets);
        drop(targets);
        if let Ok(mut all) = self.scratch.lock() {
            all.push(scratch);
        }
        Ok(results.into_iter().map(Tensor::into_tvalue).collect())
    }
}

impl TypedOp for Int8 {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.outputs.iter().map(|(shape, kind)| kind.fact(shape)).collect())
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::{
        AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, TypeProto, ValueInfoProto, tensor_proto, type_proto,
    };

    fn image() -> ValueInfoProto {
        let tensor = type_proto::Tensor { elem_type: tensor_proto::DataType::Uint8 as i32, shape: None };
        let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        ValueInfoProto { name: "image".into(), r#type: Some(kind), ..Default::default() }
    }

    #[test]
    fn a_region_number_that_nobody_wrote_is_refused() {
        for numbers in [vec![], vec![0], vec![-1], vec![i64::MAX]] {
            let attribute = |&i: &i64| AttributeProto { name: INDEX.into(), i, ..Default::default() };
            let node = NodeProto {
                op_type: REGION.into(),
                input: vec!["image".into()],
                output: vec!["y".into()],
                attribute: numbers.iter().map(attribute).collect(),
                ..Default::default()
            };
            let graph = GraphProto { node: vec![node], input: vec![image()], ..Default::default() };
            let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
            let model = ModelProto { graph: Some(graph), opset_import: vec![opset], ..Default::default() };
            let mut reader = tract_onnx::onnx();
            register(&mut reader);
            let mut model = reader.model_for_proto_model(&model).unwrap();
            let error = fill(&mut model, vec![], &1.into()).unwrap_err().to_string();
            assert!(error.contains("the number of no region"), "{error}");
        }
    }
}
