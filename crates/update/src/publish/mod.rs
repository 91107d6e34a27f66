//! The publisher's side: keys, and a repository of static files.

mod keys;
mod repository;

pub use keys::{Key, KeyError, KeyFolder, ROLES, Role};
pub use repository::{Publication, PublishError, Published, Repository, Status};
