//! What waits until a part is there from all views: a model that looks across them judges it then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Parts that may wait at one time, for each of them holds pictures; one more, and the oldest is given back as it is.
const MOST_WAITING: usize = 8;

/// What there is of a part.
#[derive(Debug)]
pub struct Gathered<T> {
    pub part: String,
    /// By the places of their views, each once, in the order in which they came.
    pub views: Vec<(usize, T)>,
}

impl<T> Gathered<T> {
    /// All of `count` views in their order; else what there is.
    pub fn whole(mut self, count: usize) -> Result<Vec<T>, Gathered<T>> {
        if self.views.len() != count {
            return Err(self);
        }
        self.views.sort_by_key(|(view, _)| *view);
        Ok(self.views.into_iter().map(|(_, value)| value).collect())
    }

    /// Those of `names` that are not there.
    pub fn missing(&self, names: &[String]) -> Vec<String> {
        let there = |view: usize| self.views.iter().any(|(seen, _)| *seen == view);
        (0..names.len()).filter(|&view| !there(view)).map(|view| names[view].clone()).collect()
    }
}

/// Gathers the views of parts, which come in any order.
#[derive(Debug)]
pub struct Gatherer<T> {
    patience: Duration,
    /// The oldest first, each with the time when its last view came.
    waiting: VecDeque<(Instant, Gathered<T>)>,
}

impl<T> Gatherer<T> {
    /// A part is given back as it is when for so long no view of it has come.
    pub fn new(patience: Duration) -> Gatherer<T> {
        Gatherer { patience, waiting: VecDeque::new() }
    }

    /// Takes one of `count` views of a part. What is whole by it comes back; so does what was begun, where the view came once more before, and what waited
    /// longest, where too many wait.
    pub fn take(&mut self, part: &str, view: usize, value: T, count: usize, now: Instant) -> Vec<Gathered<T>> {
        let mut done = vec![];
        let mut begun = self.remove(part);
        if begun.as_ref().is_some_and(|begun| begun.views.iter().any(|(seen, _)| *seen == view)) {
            done.extend(begun.take());
        }
        let mut gathered = begun.unwrap_or_else(|| Gathered { part: part.to_owned(), views: vec![] });
        gathered.views.push((view, value));
        if gathered.views.len() >= count {
            done.push(gathered);
            return done;
        }
        self.waiting.push_back((now, gathered));
        if self.waiting.len() > MOST_WAITING {
            done.extend(self.waiting.pop_front().map(|(_, oldest)| oldest));
        }
        done
    }

    /// Parts that no view came of for too long.
    pub fn overdue(&mut self, now: Instant) -> Vec<Gathered<T>> {
        let late = |(last, _): &(Instant, Gathered<T>)| now.saturating_duration_since(*last) >= self.patience;
        let (late, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(late);
        self.waiting = waiting.into();
        late.into_iter().map(|(_, gathered)| gathered).collect()
    }

    /// All that wait.
    pub fn rest(&mut self) -> Vec<Gathered<T>> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, gathered)| gathered).collect()
    }

    fn remove(&mut self, part: &str) -> Option<Gathered<T>> {
        let at = self.waiting.iter().position(|(_, waiting)| waiting.part == part)?;
        self.waiting.remove(at).map(|(_, gathered)| gathered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEWS: [&str; 3] = ["top", "left", "right"];

    fn names() -> Vec<String> {
        VIEWS.map(String::from).to_vec()
    }

    #[test]
    fn a_part_is_whole_with_its_last_view_whatever_the_order() {
        let (mut gatherer, now) = (Gatherer::new(Duration::from_secs(1)), Instant::now());
        let mut take = |part: &str, view: usize| gatherer.take(part, view, format!("{part}{view}"), 3, now);
        for (part, view) in [("a", 2), ("b", 0), ("a", 0), ("b", 1)] {
            assert!(take(part, view).is_empty());
        }
        let a = take("a", 1).remove(0);
        assert!(a.part == "a" && a.missing(&names()).is_empty());
        assert_eq!(a.whole(3).unwrap(), ["a0", "a1", "a2"]);
        assert_eq!(take("b", 2).remove(0).whole(3).unwrap(), ["b0", "b1", "b2"]);
        assert!(gatherer.rest().is_empty());
    }

    #[test]
    fn what_is_not_whole_comes_back_as_it_is() {
        let (mut gatherer, now) = (Gatherer::new(Duration::from_secs(1)), Instant::now());
        assert!(gatherer.take("a", 1, 1, 3, now).is_empty());
        // The same view again: the part is shown once more.
        let begun = gatherer.take("a", 1, 2, 3, now).remove(0);
        assert_eq!((begun.missing(&names()), begun.views[0]), (vec!["top".to_owned(), "right".to_owned()], (1, 1)));
        assert!(gatherer.overdue(now).is_empty());
        let late = gatherer.overdue(now + Duration::from_secs(1)).remove(0).whole(3).unwrap_err();
        assert_eq!(late.views, [(1, 2)]);
        for part in 0..MOST_WAITING {
            assert!(gatherer.take(&part.to_string(), 0, 0, 3, now).is_empty());
        }
        assert_eq!(gatherer.take("one more", 0, 0, 3, now)[0].part, "0");
        assert_eq!(gatherer.rest().len(), MOST_WAITING);
    }
}
