//! Compiles the protobuf schemas with `protox`, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schemas = [
        "proto/message.proto",
        "proto/wire.proto",
        "proto/outbox.proto",
        "proto/rendezvous.proto",
        "proto/stdio.proto",
    ];
    for schema in schemas {
        println!("cargo::rerun-if-changed={schema}");
    }
    let descriptors = protox::compile(schemas, ["proto"])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
