//! A region as an operator of tract: first one whose shapes are to be found out, then one that runs.

use super::lower;
use super::partition::{REGION, THREADS};
use ckaad_int8::kernels::Isa;
use ckaad_int8::pool::Pool;
use ckaad_int8::program::Program;
use ckaad_int8::region::{Op as RegionOp, Region};
use ckaad_int8::run::Scratch;
use std::sync::{Arc, Mutex};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// Makes tract's ONNX reader understand regions.
pub fn register(reader: &mut tract_onnx::Onnx) {
    reader.op_register.insert(REGION, |_, node| {
        let region = lower::region(node).map_err(|e| format_err!("{e}"))?;
        let threads = node.attribute.iter().find(|a| a.name == THREADS).map_or(1, |a| a.i.clamp(1, 256) as usize);
        let inputs = input_types(&region, node);
        Ok((expand(Unshaped { region: Arc::new(region), inputs, threads }), vec![]))
    });
}

/// The datum types of a region's inputs.
fn input_types(region: &Region, node: &NodeProto) -> Vec<DatumType> {
    let mut types = vec![DatumType::U8; node.input.len()];
    for node in &region.nodes {
        let RegionOp::Input(input) = &node.op else { continue };
        if let Some(kind) = types.get_mut(input.index).filter(|_| input.signed) {
            *kind = DatumType::I8;
        }
    }
    types
}

#[derive(Clone, Debug)]
struct Unshaped {
    region: Arc<Region>,
    inputs: Vec<DatumType>,
    threads: usize,
}

impl Unshaped {
    /// `[1,C,H,W]` and the type of each output.
    fn outputs(&self, inputs: &[TVec<TDim>]) -> TractResult<Vec<([usize; 4], DatumType)>> {
        let shapes = self.region.shapes(&concrete(inputs)?).map_err(|e| format_err!("{e}"))?;
        let kind = |op: &RegionOp| match op {
            RegionOp::Bytes { signed: true } => DatumType::I8,
            RegionOp::Bytes { signed: false } => DatumType::U8,
            _ => DatumType::F32,
        };
        let output = |&id: &usize| {
            let [c, h, w] = shapes[id];
            ([1, c, h, w], kind(&self.region.nodes[id].op))
        };
        Ok(self.region.outputs.iter().map(output).collect())
    }
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
        Ok(self.region.outputs.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.inputs.len())?;
        check_output_arity(outputs, self.region.outputs.len())?;
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
        let outputs = self.outputs(&shapes)?;
        let program = Program::compile(&self.region, &concrete(&shapes)?, Isa::best(), self.threads);
        let program = program.map_err(|e| format_err!("{e}"))?;
        let shaped = Int8 {
            program: Arc::new(program),
            outputs,
            pool: Pool::of(self.threads),
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
    pool: Arc<Pool>,
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
