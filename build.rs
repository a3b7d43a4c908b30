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
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        // Tests look at events without knowing their types.
        .type_attribute(".p2p_node.stdio", "#[cfg_attr(test, derive(serde::Serialize))]")
        .type_attribute(".p2p_node.Message", "#[cfg_attr(test, derive(serde::Serialize))]")
        .field_attribute(
            ".p2p_node.Message.payload",
            "#[cfg_attr(test, serde(serialize_with = \"crate::proto::as_numbers\"))]",
        )
        .compile_fds(descriptors)?;
    Ok(())
}
