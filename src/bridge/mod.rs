//! Driving a node over stdin and stdout.
