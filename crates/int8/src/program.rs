//! A region with known shapes → steps over one block of memory.
//!
//! Tensors are channels-last, a pixel's channels filled up to a multiple of 16 values; what a convolution pads lies
//! around the tensor as a border of zero points, so no kernel knows about borders. A step is cut in *units*; any thread
//! takes the next unit of a step, and goes on to the next step when all units of this one are done, whoever did them.
//! Nothing is allocated while it runs.

use crate::buffer::Buffer;
use crate::isa::Isa;
use crate::memory::{Memory, layout};
use crate::operator::{Placed, Step};
use crate::region::Region;
use crate::shape::{ElementType, Shape};

/// A region made ready for one CPU and for inputs of known shapes. Running does not change it.
pub struct Program {
    pub(crate) isa: Isa,
    pub(crate) stages: Vec<Stage>,
    /// Bytes of memory that a run needs.
    pub(crate) memory: usize,
    /// Of each tensor that is read from outside: which of the inputs, and how many bytes it has.
    pub(crate) inputs: Vec<(usize, usize)>,
    /// Of each result that leaves.
    pub(crate) outputs: Vec<Output>,
}

/// A node's step, and the border around its result.
pub(crate) struct Stage {
    pub step: Box<dyn Step>,
    /// Its filling is one unit more, the first.
    pub border: Option<Buffer>,
    /// With that of the border.
    pub units: usize,
}

/// A result that leaves, `[1,C,H,W]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Without the batch.
    pub shape: Shape,
    /// Of its values.
    pub element: ElementType,
}

impl Output {
    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.bytes()
    }
}

/// The results that leave a region with inputs of these shapes, in its order.
///
/// # Errors
/// A sentence, when shapes do not fit or a result does not leave.
pub fn outputs(region: &Region, inputs: &[[usize; 4]]) -> Result<Vec<Output>, String> {
    of_shapes(region, &region.shapes(inputs)?)
}

fn of_shapes(region: &Region, shapes: &[Shape]) -> Result<Vec<Output>, String> {
    let output = |id: usize| {
        let node = region.nodes().get(id).ok_or("an output is not a node of the region")?;
        let element = node.op.leaves().ok_or_else(|| format!("{}: it does not leave the region", node.name))?;
        Ok(Output { shape: shapes[id], element })
    };
    region.outputs().iter().map(|id| output(id.index())).collect()
}

impl Program {
    /// Lays the tensors out, packs the weights and cuts the work for so many threads. `inputs` are the shapes of the
    /// region's inputs as they come, `[1,C,H,W]` or `[1,H,W,C]`.
    ///
    /// # Errors
    /// A sentence, when shapes do not fit.
    pub fn compile(region: &Region, inputs: &[[usize; 4]], isa: Isa, threads: usize) -> Result<Program, String> {
        let shapes = region.shapes(inputs)?;
        let outputs = of_shapes(region, &shapes)?;
        let Memory { buffers, bytes } = layout(region, &shapes)?;
        let (mut stages, mut read) = (vec![], vec![]);
        for (id, node) in region.nodes().iter().enumerate() {
            let result = buffers[id];
            let output = region.outputs().iter().position(|output| output.index() == id);
            let leaves = node.op.leaves().is_some();
            if leaves && output.is_none() {
                return Err(format!("{}: it leaves the region and is not among its outputs", node.name));
            }
            if let Some(input) = node.op.input() {
                read.push((input.index, inputs[input.index].iter().product()));
            }
            let of = node.inputs.iter().map(|input| buffers[input.index()]).collect();
            let step = node.op.compile(&Placed { inputs: of, result, output, isa, threads });
            let border = (result.border() && !leaves).then_some(result);
            let units = step.units() + usize::from(border.is_some());
            stages.push(Stage { step, border, units });
        }
        Ok(Program { isa, stages, memory: bytes, inputs: read, outputs })
    }

    /// What leaves, in the region's order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }
}
