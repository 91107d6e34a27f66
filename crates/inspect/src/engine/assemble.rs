//! Recognised operators of one level → a [`Region`].

use super::patterns::Match;
use super::tensors::Tensors;
use ckaad_int8::Operator;
use ckaad_int8::ops::{ByteOutput, FloatOutput};
use ckaad_int8::region::{NodeId, Region};
use ckaad_int8::shape::{ElementType, Input};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub struct Assembled {
    pub region: Region,
    /// Names of the tensors that it reads from outside and of those that leave it, in the region's order.
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

/// `matches` have the name of their result and are in the order of the graph; `outputs` are among these names.
///
/// # Errors
/// A sentence, when nothing gives a tensor that a node reads.
pub fn assemble(matches: Vec<(&str, Match)>, outputs: Vec<String>, tensors: &Tensors) -> Result<Assembled, String> {
    let leaving: HashSet<&str> = outputs.iter().map(String::as_str).collect();
    // What somebody reads inside: the parts of larger patterns are read by nobody.
    let mut read: HashSet<String> = HashSet::new();
    for (name, found) in matches.iter().rev() {
        if leaving.contains(name) || read.contains(*name) {
            read.extend(found.inputs.iter().cloned());
        }
    }
    let written = matches.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut assembly = Assembly { region: Region::default(), ids: HashMap::new(), inputs: vec![], written, tensors };
    for (name, found) in matches {
        let (inside, outside) = (read.contains(name), leaving.contains(name));
        if inside || outside {
            assembly.take(name, found, inside)?;
        }
    }
    for name in &outputs {
        assembly.leave(name)?;
    }
    Ok(Assembled { region: assembly.region, inputs: assembly.inputs, outputs })
}

struct Assembly<'a> {
    region: Region,
    ids: HashMap<String, NodeId>,
    inputs: Vec<String>,
    /// Results of the region's own nodes.
    written: HashSet<String>,
    tensors: &'a Tensors<'a>,
}

impl Assembly<'_> {
    fn take(&mut self, name: &str, found: Match, inside: bool) -> Result<(), String> {
        if let Some(input) = found.op.input() {
            let index = self.outer(&found.inputs[0]);
            self.push(name, Arc::new(Input { index, ..input.clone() }), vec![]);
            return Ok(());
        }
        // Where nobody inside needs the result, it may leave as it is made.
        let op = found.op.leaving().filter(|_| !inside).unwrap_or(found.op);
        let inputs = found.inputs.iter().map(|x| self.read(x)).collect::<Result<_, _>>()?;
        self.push(name, op, inputs);
        Ok(())
    }

    fn leave(&mut self, name: &str) -> Result<(), String> {
        let mut id = *self.ids.get(name).ok_or_else(|| unknown(name))?;
        if self.region.nodes()[id.index()].op.leaves().is_none() {
            let op: Arc<dyn Operator> = match (self.region.elements()[id.index()], self.tensors.bytes(name)) {
                (ElementType::F32, _) => Arc::new(FloatOutput),
                (_, Some(element)) => Arc::new(ByteOutput(element)),
                (_, None) => return Err(format!("{name} is bytes here and not in the file")),
            };
            id = self.region.push(name, op, vec![id]);
        }
        self.region.output(id);
        Ok(())
    }

    fn push(&mut self, name: &str, op: Arc<dyn Operator>, inputs: Vec<NodeId>) -> NodeId {
        let id = self.region.push(name, op, inputs);
        self.ids.insert(name.to_owned(), id);
        id
    }

    /// The number of an input from outside.
    fn outer(&mut self, name: &str) -> usize {
        let known = self.inputs.iter().position(|x| x == name);
        known.unwrap_or_else(|| {
            self.inputs.push(name.to_owned());
            self.inputs.len() - 1
        })
    }

    /// A tensor that a node reads: another node's, or one from outside.
    fn read(&mut self, name: &str) -> Result<NodeId, String> {
        if let Some(&id) = self.ids.get(name) {
            return Ok(id);
        }
        let element = self.tensors.bytes(name).filter(|_| !self.written.contains(name));
        let element = element.ok_or_else(|| unknown(name))?;
        let index = self.outer(name);
        Ok(self.push(name, Arc::new(Input { index, channels_last: false, element, append: None }), vec![]))
    }
}

fn unknown(name: &str) -> String {
    format!("nothing in a region gives {name}")
}
