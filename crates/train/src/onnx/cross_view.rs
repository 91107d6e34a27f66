//! [`Op::CrossView`](crate::graph::Op::CrossView) in standard operators, all float: windows as rows, the choice among them by `TopK` and `Gather`,
//! attention as two products with a softmax between.

use super::proto::{GraphBuilder, int, ints};
use crate::graph::CrossView;

/// `inputs` are what asks, its position, what this view is compared by, and what the others are compared by and answer with; all `[1,C,h,w]`.
pub fn emit(b: &mut GraphBuilder, how: CrossView, shape: [usize; 3], inputs: &[String], out: &str) {
    let mut e = Emitter { b, how, shape };
    let [x, position, own, others @ ..] = inputs else { return };
    let (keys, mask) = e.looked_at(own, others);
    let asking = format!("{out}.asking");
    e.b.node("Add", &[x, position], &asking, vec![]);
    let asked = e.windows(&asking);
    let queries = e.heads(&asked, &format!("{out}.queries"), e.how.window.pow(2));
    let name = |what: &str| format!("{out}.{what}");
    e.b.node("Transpose", &[&keys], &name("keys"), vec![ints("perm", &[0, 1, 3, 2])]);
    e.b.node("MatMul", &[&queries, &name("keys")], &name("products"), vec![]);
    let scale = e.b.f32s(&name("scale"), &[], &[(shape[0] as f32).powf(-0.5)]);
    e.b.node("Mul", &[&name("products"), &scale], &name("scaled"), vec![]);
    let mut weighed = name("scaled");
    if let Some(mask) = mask {
        e.b.node("Add", &[&weighed, &mask], &name("masked"), vec![]);
        weighed = name("masked");
    }
    e.b.node("Softmax", &[&weighed], &name("shares"), vec![int("axis", -1)]);
    e.b.node("MatMul", &[&name("shares"), &keys], &name("sums"), vec![]);
    e.b.node("Transpose", &[&name("sums")], &name("cells"), vec![ints("perm", &[0, 2, 1, 3])]);
    e.map(&name("cells"), out);
}

struct Emitter<'a> {
    b: &'a mut GraphBuilder,
    how: CrossView,
    /// Of every input.
    shape: [usize; 3],
}

impl Emitter<'_> {
    fn size(&self) -> [usize; 2] {
        [self.shape[1], self.shape[2]]
    }

    /// Height and width with whole windows.
    fn covered(&self) -> [usize; 2] {
        self.how.windows(self.size()).map(|windows| windows * self.how.window)
    }

    /// `[1,C,h,w]` as `[windows,cells,C]`, once for all that ask.
    fn windows(&mut self, x: &str) -> String {
        let name = |what: &str| format!("{x}.{what}");
        let out = name("windows");
        if self.b.has_output(&out) {
            return out;
        }
        let [c, h, w] = self.shape.map(|n| n as i64);
        let [down, across] = self.how.windows(self.size()).map(|n| n as i64);
        let side = self.how.window as i64;
        let mut covered = x.to_owned();
        if self.covered() != self.size() {
            let pads = self.b.i64s(&name("pads"), &[0, 0, 0, 0, 0, 0, down * side - h, across * side - w]);
            self.b.node("Pad", &[x, &pads], &name("covered"), vec![]);
            covered = name("covered");
        }
        let split = self.b.i64s(&name("split"), &[c, down, side, across, side]);
        self.b.node("Reshape", &[&covered, &split], &name("blocks"), vec![]);
        self.b.node("Transpose", &[&name("blocks")], &name("cells"), vec![ints("perm", &[1, 3, 2, 4, 0])]);
        let rows = self.b.i64s(&name("rows"), &[down * across, side * side, c]);
        self.b.node("Reshape", &[&name("cells"), &rows], &out, vec![]);
        out
    }

    /// `[windows,C]`: the mean of each window's cells that lie on the map.
    fn means(&mut self, x: &str) -> String {
        let windows = self.windows(x);
        let out = format!("{x}.means");
        if !self.b.has_output(&out) {
            let cells = self.how.on_map(self.size());
            let count = |window: &[bool]| 1.0 / window.iter().filter(|on| **on).count().max(1) as f32;
            let inverse: Vec<f32> = cells.chunks(self.how.window.pow(2)).map(count).collect();
            let inverse = self.b.f32s(&format!("{x}.inverse"), &[inverse.len(), 1], &inverse);
            let axis = self.b.i64s("window.axis", &[1]);
            let sums = format!("{x}.sums");
            self.b.node("ReduceSum", &[&windows, &axis], &sums, vec![int("keepdims", 0)]);
            self.b.node("Mul", &[&sums, &inverse], &out, vec![]);
        }
        out
    }

    /// The chosen windows of the others, `[windows,heads,cells,C/heads]`, and what is to be added to products with them, where not all of their cells lie
    /// on the map; once for all that ask.
    fn looked_at(&mut self, own: &str, others: &[String]) -> (String, Option<String>) {
        let name = |what: &str| format!("{own}.{what}");
        let on_map = self.how.on_map(self.size());
        let all = on_map.iter().all(|on| *on);
        let (keys, mask) = (name("looked_at"), (!all).then(|| name("looked_at.mask")));
        if self.b.has_output(&keys) {
            return (keys, mask);
        }
        let count = self.how.looked_at(self.size());
        let windows: Vec<String> = others.iter().map(|other| self.windows(other)).collect();
        let means: Vec<String> = others.iter().map(|other| self.means(other)).collect();
        for (each, out) in [(windows, name("others")), (means, name("others.means"))] {
            let each: Vec<&str> = each.iter().map(String::as_str).collect();
            self.b.node("Concat", &each, &out, vec![int("axis", 0)]);
        }
        let mine = self.means(own);
        self.b.node("Transpose", &[&name("others.means")], &name("others.columns"), vec![ints("perm", &[1, 0])]);
        self.b.node("MatMul", &[&mine, &name("others.columns")], &name("alike"), vec![]);
        let k = self.b.i64s(&name("top"), &[count as i64]);
        let order = vec![int("axis", 1), int("largest", 1), int("sorted", 1)];
        self.b.node_with_outputs("TopK", &[&name("alike"), &k], &[&name("best"), &name("best.places")], order);
        self.b.node("Gather", &[&name("others"), &name("best.places")], &name("chosen"), vec![int("axis", 0)]);
        let cells = count * self.how.window.pow(2);
        let chosen = self.heads(&name("chosen"), &keys, cells);
        if let Some(mask) = &mask {
            let never: Vec<f32> = on_map.iter().map(|&on| if on { 0.0 } else { CrossView::NEVER }).collect();
            let side = self.how.window.pow(2);
            let never =
                self.b.f32s(&name("never"), &[others.len() * never.len() / side, side], &never.repeat(others.len()));
            self.b.node("Gather", &[&never, &name("best.places")], &name("never.chosen"), vec![int("axis", 0)]);
            let row = self.b.i64s(&name("never.row"), &[(on_map.len() / side) as i64, 1, 1, cells as i64]);
            self.b.node("Reshape", &[&name("never.chosen"), &row], mask, vec![]);
        }
        (chosen, mask)
    }

    /// `[windows,...,C]` with so many cells a window as `[windows,heads,cells,C/heads]`.
    fn heads(&mut self, x: &str, out: &str, cells: usize) -> String {
        let [down, across] = self.how.windows(self.size());
        let heads = self.how.heads;
        let dims = [down * across, cells, heads, self.shape[0] / heads].map(|n| n as i64);
        let dims = self.b.i64s(&format!("{out}.dims"), &dims);
        let split = format!("{out}.split");
        self.b.node("Reshape", &[x, &dims], &split, vec![]);
        self.b.node("Transpose", &[&split], out, vec![ints("perm", &[0, 2, 1, 3])]);
        out.to_owned()
    }

    /// `[windows,cells,heads,C/heads]` as `[1,C,h,w]`.
    fn map(&mut self, x: &str, out: &str) {
        let name = |what: &str| format!("{out}.{what}");
        let [c, h, w] = self.shape.map(|n| n as i64);
        let [down, across] = self.how.windows(self.size()).map(|n| n as i64);
        let side = self.how.window as i64;
        let blocks = self.b.i64s(&name("blocks.dims"), &[down, across, side, side, c]);
        self.b.node("Reshape", &[x, &blocks], &name("blocks"), vec![]);
        self.b.node("Transpose", &[&name("blocks")], &name("rows"), vec![ints("perm", &[4, 0, 2, 1, 3])]);
        let exact = self.covered() == self.size();
        let whole = if exact { out.to_owned() } else { name("covered") };
        let dims = self.b.i64s(&name("dims"), &[1, c, down * side, across * side]);
        self.b.node("Reshape", &[&name("rows"), &dims], &whole, vec![]);
        if !exact {
            let [from, to, axes] =
                [("from", [0, 0]), ("to", [h, w]), ("axes", [2, 3])].map(|(what, of)| self.b.i64s(&name(what), &of));
            self.b.node("Slice", &[&whole, &from, &to, &axes], out, vec![]);
        }
    }
}
