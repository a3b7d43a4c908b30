//! Finding a way through NATs: pure but for small shells.
