//! What an operator of a region is, and what it becomes when it is made ready to run.
//!
//! A new operator is one file in `ops`: a struct with its parameters, an [`Operator`] that says what it reads and
//! gives, and a step. Where a row of the result can be made from rows of the inputs, the step is a [`RowStep`], which
//! needs no `unsafe`.

use crate::buffer::Buffer;
use crate::isa::Isa;
use crate::shape::{ElementType, Input, Shape};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What kind of tensors an operator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Tensors of bytes.
    Bytes,
    /// Tensors of floats.
    Floats,
    /// Either, all inputs alike.
    Either,
}

/// A border that an operator wants around its first input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Border {
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    /// What it holds.
    pub zero: u8,
}

/// A node's computation: its parameters and what it does to shapes and types. It has one result.
///
/// Only this crate can implement it: a program runs the steps that operators compile to, and trusts them with its memory.
pub trait Operator: Debug + Send + Sync {
    /// For messages, with an article.
    fn name(&self) -> &'static str;

    /// What it reads.
    fn reads(&self) -> Reads;

    /// What its result holds inside the region, U8 or F32, where its first input holds `of`.
    fn gives(&self, of: ElementType) -> ElementType;

    /// Shape of the result; none where the inputs do not fit.
    fn shape(&self, inputs: &[Shape]) -> Option<Shape>;

    /// Makes it ready for tensors that lie somewhere.
    fn compile(&self, placed: &Placed) -> Box<dyn Step>;

    /// What its result is outside, where it leaves the region as `[1,C,H,W]`. Such a result is in no run's memory, so
    /// no node reads it.
    fn leaves(&self) -> Option<ElementType> {
        None
    }

    /// The same operator with a result that leaves the region, where that saves a tensor.
    fn leaving(&self) -> Option<Arc<dyn Operator>> {
        None
    }

    /// An operator on the same inputs whose result this one reads behind them.
    fn before(&self) -> Option<Arc<dyn Operator>> {
        None
    }

    /// The border that it reads around its first input.
    fn border(&self) -> Option<Border> {
        None
    }

    /// Whether it also reads pixels that are their channels and nothing else.
    fn reads_tight_pixels(&self) -> bool {
        false
    }

    /// How many weights it holds once they are packed, about.
    fn weights(&self) -> usize {
        0
    }

    /// The parameters of a tensor from outside, if it is one.
    fn input(&self) -> Option<&Input> {
        None
    }
}

/// Where the tensors of an operator lie.
pub struct Placed {
    /// Its inputs.
    pub inputs: Vec<Buffer>,
    /// Its result. Where it leaves the region, only the shape counts.
    pub result: Buffer,
    /// Which of the region's outputs the result is, if it leaves.
    pub output: Option<usize>,
    /// Whose kernels will run.
    pub isa: Isa,
    /// Threads that will share the work.
    pub threads: usize,
}

/// An operator ready to run. Its work is cut in units that threads take in any order.
pub trait Step: Send + Sync {
    /// How many units there are.
    fn units(&self) -> usize;

    /// Does one unit.
    ///
    /// # Safety
    /// `place` is a run of the program that this step was compiled into; `unit` is below [`Step::units`] and is run
    /// once in that run; all steps before are done, and no step behind has begun.
    unsafe fn run(&self, unit: usize, place: &Place);
}

/// Where a run's data are.
pub struct Place<'a> {
    /// For the kernels.
    pub isa: Isa,
    pub(crate) memory: *mut u8,
    pub(crate) inputs: &'a [&'a [u8]],
    pub(crate) targets: &'a [AtomicPtr<u8>],
}

/// A step whose units are the rows of its result.
pub trait RowStep: Send + Sync {
    /// Makes one row.
    fn row(&self, row: &mut Row);
}

impl Placed {
    /// A step whose units are the rows of the result.
    pub fn rows(&self, step: impl RowStep + 'static) -> Box<dyn Step> {
        Box::new(Rows { step, inputs: self.inputs.clone(), result: self.result, output: self.output })
    }
}

struct Rows<R> {
    step: R,
    inputs: Vec<Buffer>,
    result: Buffer,
    output: Option<usize>,
}

impl<R: RowStep> Step for Rows<R> {
    fn units(&self) -> usize {
        self.result.shape[1]
    }

    unsafe fn run(&self, unit: usize, place: &Place) {
        let &Rows { ref step, ref inputs, result, output } = self;
        // The accesses of `Row` rest on the caller's promise.
        step.row(&mut Row { isa: place.isa, y: unit, place, inputs, result, output });
    }
}

/// One row of a result, while a [`RowStep`] makes it.
pub struct Row<'a> {
    /// For the kernels.
    pub isa: Isa,
    /// Which row it is.
    pub y: usize,
    place: &'a Place<'a>,
    inputs: &'a [Buffer],
    result: Buffer,
    output: Option<usize>,
}

// SAFETY, for all of the accesses below: only `Rows::run` makes a `Row`, under the promise of `Step::run`. So the
// memory is laid out for these buffers, a result shares no byte with an input, nobody writes an input during this step,
// and row `y` of the result is this unit's alone. Each access to the result borrows the `Row`, so there is one at a
// time.
impl<'a> Row<'a> {
    /// Where an input lies.
    pub fn input(&self, input: usize) -> &'a Buffer {
        &self.inputs[input]
    }

    /// How many inputs there are.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Where the result lies.
    pub fn result(&self) -> &Buffer {
        &self.result
    }

    /// The values of one of the region's inputs, as they come from outside.
    pub fn outside(&self, index: usize) -> &'a [u8] {
        self.place.inputs[index]
    }

    /// Row `y` of an input: all lanes of all pixels, as bytes.
    pub fn bytes(&self, input: usize, y: usize) -> &'a [u8] {
        // SAFETY: see above.
        unsafe { self.inputs[input].row(self.place.memory, y) }
    }

    /// Row `y` of an input of floats.
    ///
    /// # Panics
    /// When it holds bytes.
    pub fn floats(&self, input: usize, y: usize) -> &'a [f32] {
        // SAFETY: see above.
        unsafe { self.inputs[input].floats(self.place.memory, y) }
    }

    /// The row to be written, as bytes.
    ///
    /// # Panics
    /// When the result leaves the region.
    pub fn out(&mut self) -> &mut [u8] {
        assert!(self.output.is_none());
        // SAFETY: see above.
        unsafe { self.result.row_mut(self.place.memory, self.y) }
    }

    /// The row to be written, of floats.
    ///
    /// # Panics
    /// When the result leaves the region or holds bytes.
    pub fn out_floats(&mut self) -> &mut [f32] {
        assert!(self.output.is_none());
        // SAFETY: see above.
        unsafe { self.result.floats_mut(self.place.memory, self.y) }
    }

    /// The row of one channel of a result that leaves, of bytes.
    ///
    /// # Panics
    /// When it does not leave or holds floats.
    pub fn plane_bytes(&mut self, channel: usize) -> &mut [u8] {
        assert!(self.result.element == ElementType::U8);
        // SAFETY: see above.
        unsafe { self.plane(channel) }
    }

    /// The row of one channel of a result that leaves, of floats.
    ///
    /// # Panics
    /// When it does not leave or holds bytes.
    pub fn plane_floats(&mut self, channel: usize) -> &mut [f32] {
        assert!(self.result.element == ElementType::F32);
        // SAFETY: see above.
        unsafe { self.plane(channel) }
    }

    /// # Safety
    /// The result's values are `T`s.
    unsafe fn plane<T>(&mut self, channel: usize) -> &mut [T] {
        let [channels, height, width] = self.result.shape;
        let output = self.output.expect("a result that leaves");
        assert!(channel < channels && self.y < height);
        let target = self.place.targets[output].load(Ordering::Relaxed).cast::<T>();
        // SAFETY: `Program::run` saw that the target is aligned and has room for `[channels, height, width]`.
        unsafe { std::slice::from_raw_parts_mut(target.add((channel * height + self.y) * width), width) }
    }
}
