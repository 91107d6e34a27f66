//! Sorting more records than memory should hold: sorted runs in temporary files, merged when they are read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

/// What can be sorted and kept on disk.
pub trait Record: Copy + Ord + Send {
    fn write(self, to: &mut impl Write) -> io::Result<()>;
    fn read(from: &mut impl Read) -> io::Result<Self>;
}

impl Record for u32 {
    fn write(self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.to_le_bytes())
    }

    fn read(from: &mut impl Read) -> io::Result<u32> {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

impl Record for u64 {
    fn write(self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.to_le_bytes())
    }

    fn read(from: &mut impl Read) -> io::Result<u64> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Gathers records in memory up to a limit; beyond it, in sorted runs, each an unnamed file in the system's temporary
/// folder.
pub struct Runs<R> {
    limit: usize,
    memory: Vec<R>,
    files: Vec<(File, u64)>,
}

impl<R: Record> Runs<R> {
    /// `limit` is the number of records that memory may hold.
    pub fn new(limit: usize) -> Runs<R> {
        Runs { limit: limit.max(1), memory: vec![], files: vec![] }
    }

    /// # Errors
    /// When a run cannot be written to the temporary folder.
    pub fn push(&mut self, record: R) -> io::Result<()> {
        if self.memory.len() >= self.limit {
            self.spill()?;
        }
        self.memory.push(record);
        Ok(())
    }

    /// Number of runs on disk.
    pub fn spilled(&self) -> usize {
        self.files.len()
    }

    /// All records, the smallest first.
    ///
    /// # Errors
    /// When a run cannot be read back.
    pub fn sorted(mut self) -> io::Result<Sorted<R>> {
        self.sort_memory();
        let mut readers = vec![Reader::Memory(self.memory.into_iter())];
        for (file, records) in self.files {
            readers.push(Reader::File(BufReader::with_capacity(1 << 20, file), records));
        }
        Sorted::of(readers)
    }

    fn sort_memory(&mut self) {
        use rayon::slice::ParallelSliceMut;
        self.memory.par_sort_unstable();
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort_memory();
        let mut to = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        for &record in &self.memory {
            record.write(&mut to)?;
        }
        let mut file = to.into_inner().map_err(|e| e.into_error())?;
        file.rewind()?;
        self.files.push((file, self.memory.len() as u64));
        self.memory.clear();
        Ok(())
    }
}

enum Reader<R> {
    Memory(std::vec::IntoIter<R>),
    /// A run with the number of records that are left in it.
    File(BufReader<File>, u64),
}

impl<R: Record> Reader<R> {
    fn next(&mut self) -> io::Result<Option<R>> {
        match self {
            Reader::Memory(records) => Ok(records.next()),
            Reader::File(_, 0) => Ok(None),
            Reader::File(from, left) => {
                *left -= 1;
                R::read(from).map(Some)
            }
        }
    }
}

/// The merged runs, with the next record at hand.
pub struct Sorted<R> {
    readers: Vec<Reader<R>>,
    /// The first record of every source, where there is more than one.
    heads: BinaryHeap<Reverse<(R, usize)>>,
    next: Option<R>,
}

impl<R: Record> Sorted<R> {
    fn of(mut readers: Vec<Reader<R>>) -> io::Result<Sorted<R>> {
        let mut heads = BinaryHeap::new();
        if readers.len() > 1 {
            for (index, source) in readers.iter_mut().enumerate() {
                heads.extend(source.next()?.map(|record| Reverse((record, index))));
            }
        }
        let mut sorted = Sorted { readers, heads, next: None };
        sorted.advance()?;
        Ok(sorted)
    }

    pub fn peek(&self) -> Option<R> {
        self.next
    }

    pub fn advance(&mut self) -> io::Result<()> {
        self.next = match &mut self.readers[..] {
            [only] => only.next()?,
            readers => match self.heads.pop() {
                None => None,
                Some(Reverse((record, index))) => {
                    self.heads.extend(readers[index].next()?.map(|next| Reverse((next, index))));
                    Some(record)
                }
            },
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn records_come_back_sorted_whether_or_not_they_fit_in_memory() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let records: Vec<u64> = (0..1_000).map(|_| rng.random_range(0..500)).collect();
        let mut expected = records.clone();
        expected.sort_unstable();
        for (limit, runs_on_disk) in [(1_000, 0), (999, 1), (37, 27), (1, 999)] {
            let mut runs = Runs::new(limit);
            for &record in &records {
                runs.push(record).unwrap();
            }
            assert_eq!(runs.spilled(), runs_on_disk);
            let mut sorted = runs.sorted().unwrap();
            let mut found = vec![];
            while let Some(record) = sorted.peek() {
                found.push(record);
                sorted.advance().unwrap();
            }
            assert_eq!(found, expected, "limit {limit}");
        }
    }
}
