//! Sessions without links: each rule by itself, and a model that tries them all at random.

mod model;
mod rules;
mod world;
