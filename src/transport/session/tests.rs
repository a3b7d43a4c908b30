//! Sessions without links: the rules, and a model that tries them at random.
