//! An internet in a box.
