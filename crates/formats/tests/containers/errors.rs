//! One file and the exact error for each thing that can be wrong.

use formats::gguf::{Gguf, Metadata, TensorSpec, Value, write};
use formats::writer::WriteError;
use formats::{FormatError, TensorType, safetensors_file};

use crate::raw::{Raw, gguf, safetensors};

fn field(field: &str, offset: u64, problem: &str) -> FormatError {
    FormatError::field(field, offset, problem)
}

fn tensor(name: &str, offset: u64, problem: &str) -> FormatError {
    FormatError::tensor(name, offset, problem)
}

fn truncated(what: &str, offset: u64, end: u64, len: u64) -> FormatError {
    FormatError::Truncated { what: what.into(), offset, end, len }
}

#[test]
fn gguf_headers() {
    let cases = [
        (vec![], truncated("magic", 0, 4, 0)),
        (
            b"GGML\0\0\0\0".to_vec(),
            FormatError::Unknown { problem: "wanted \"GGUF\", found [71, 71, 77, 76]".into() },
        ),
        (
            Raw::header(1, 0, 0).0,
            field(
                "version",
                4,
                "version 1 (32-bit counts, August 2023) is not supported: convert it with a llama.cpp of that time",
            ),
        ),
        (Raw::header(4, 0, 0).0, field("version", 4, "version 4 is unknown; 2 and 3 are supported")),
        (Raw::header(3 << 24, 0, 0).0, field("version", 4, "the file is big-endian, which is not supported")),
        (
            Raw::header(3, u64::MAX, 0).0,
            FormatError::Limit { field: "tensor count".into(), value: u64::MAX, limit: 1 << 20 },
        ),
        (
            Raw::header(3, 1, 0).0,
            field("tensor count", 8, "1 do not fit in the rest of the file, which has room for 0"),
        ),
        (
            Raw::header(3, 0, 1 << 20).data(26).0,
            field("metadata count", 16, "1048576 do not fit in the rest of the file, which has room for 2"),
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(Gguf::parse(&bytes), Err(error));
    }
}

#[test]
fn gguf_metadata() {
    let one = |ty: u32| Raw::header(3, 0, 1).entry("key", ty);
    let mut deep = one(9);
    for _ in 0..4 {
        deep = deep.u32(9).u64(1);
    }
    let cases = [
        (
            Raw::header(3, 0, 1).u64(u64::MAX).data(9).0,
            truncated("key of metadata entry 0", 32, u64::MAX, 41),
        ),
        (one(13).data(8).0, field("key", 35, "13 is no value type (0 to 12 are)")),
        (one(7).bytes(&[2]).0, field("key", 39, "a bool is 0 or 1, not 2")),
        (one(8).u64(3).bytes(b"ab\xff").0, field("key", 49, "the string is not UTF-8 from here on")),
        (one(9).u32(4).u64(3).data(11).0, truncated("key", 51, 63, 62)),
        (one(9).u32(8).u64(1 << 60).data(8).0, truncated("key", 51, 51 + (1 << 63), 59)),
        (one(9).u32(12).u64(u64::MAX).data(8).0, truncated("key", 51, u64::MAX, 59)),
        (one(9).u32(8).u64(1).u64(9).data(8).0, truncated("key", 59, 68, 67)),
        (one(9).u32(99).u64(1).data(1).0, field("key", 39, "99 is no value type (0 to 12 are)")),
        (deep.u32(0).u64(1).data(1).0, field("key", 87, "arrays are nested deeper than 4")),
        (
            Raw::header(3, 0, 2).entry("key", 0).bytes(&[1]).entry("key", 0).bytes(&[1]).0,
            field("key", 40, "the key occurs twice"),
        ),
        (
            Raw::header(3, 0, 1).entry("general.alignment", 4).u32(48).0,
            field("general.alignment", 53, "48 is not a power of two below 2^32"),
        ),
        (
            Raw::header(3, 0, 1).entry("general.alignment", 4).u32(0).0,
            field("general.alignment", 53, "0 is not a power of two below 2^32"),
        ),
        (
            Raw::header(3, 0, 1).entry("general.alignment", 7).bytes(&[1]).0,
            field("general.alignment", 53, "wanted a non-negative integer, found a value of type bool"),
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(Gguf::parse(&bytes), Err(error));
    }
}

#[test]
fn gguf_tensors() {
    const SUPPORTED: &str = "is not supported; the supported ones are F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, \
         Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, I8, I16, I32, I64, F64, BF16, TQ1_0, TQ2_0, I2_S, MXFP4, TG1, TG2, \
         BG1";
    let one = |dims: &[u64], ty, offset| Raw::header(3, 1, 0).tensor("w", dims, ty, offset).pad().data(64).0;
    let two = |second: &str, offset| {
        Raw::header(3, 2, 0).tensor("w", &[9], 0, 0).tensor(second, &[9], 0, offset).pad().data(128).0
    };
    let bitnet = |ty| {
        Raw::header(3, 1, 1)
            .entry("general.architecture", 8)
            .string("bitnet-b1.58")
            .tensor("w", &[32], ty, 0)
            .pad()
            .data(64)
            .0
    };
    let cases = [
        (one(&[4], 17, 0), tensor("w", 24, &format!("type 17 (IQ2_XS) {SUPPORTED}"))),
        (one(&[4], 99, 0), tensor("w", 24, &format!("type 99 (unknown) {SUPPORTED}"))),
        (one(&[4], 38, 0), tensor("w", 24, &format!("type 38 (TL1 of bitnet.cpp) {SUPPORTED}"))),
        (bitnet(39), tensor("w", 76, &format!("type 39 (TL2 of bitnet.cpp) {SUPPORTED}"))),
        (one(&[33], 8, 0), tensor("w", 24, "rows of 33 are no whole number of Q8_0 blocks of 32")),
        (one(&[1; 9], 0, 0), tensor("w", 24, "9 dimensions are more than 8")),
        (one(&[4, 0], 0, 0), tensor("w", 24, "shape [0, 4] is empty or does not fit in 64 bits")),
        (
            one(&[1 << 32, 1 << 32], 0, 0),
            tensor("w", 24, "shape [4294967296, 4294967296] is empty or does not fit in 64 bits"),
        ),
        (
            one(&[1 << 63], 0, 0),
            tensor("w", 24, "rows of 9223372036854775808 are no whole number of F32 blocks of 1"),
        ),
        (one(&[4], 0, 8), tensor("w", 8, "offset 8 is not a multiple of 32")),
        (one(&[4], 0, 64), truncated("tensor w", 128, 144, 128)),
        (one(&[4], 0, u64::MAX - 31), tensor("w", u64::MAX - 31, "the offset does not fit in 64 bits")),
        (two("w", 64), tensor("w", 57, "the name occurs twice")),
        (two("v", 32), tensor("v", 128, "overlaps w, which ends at byte 132")),
        (two("v", 0), tensor("v", 96, "overlaps w, which ends at byte 132")),
        (
            Raw::header(3, 1, 0).tensor("w", &[4], 0, 0).0,
            truncated("padding before the tensor data", 57, 64, 57),
        ),
        (
            Raw::header(3, 1, 0).u64(1).bytes(b"\xff").data(40).0,
            field("name of tensor 0", 32, "the string is not UTF-8 from here on"),
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(Gguf::parse(&bytes), Err(error));
    }
    assert!(Gguf::parse(&bitnet(36)).is_ok(), "I2_S, with its tail");
    assert!(Gguf::parse(&one(&[32], 39, 0)).is_ok(), "39 is MXFP4 everywhere else");
    assert!(Gguf::parse(&two("v", 64)).is_ok(), "a gap is allowed");
}

#[test]
fn gguf_getters() {
    let bytes = gguf();
    let gguf = Gguf::parse(&bytes).unwrap();
    let at = |key: &str| gguf.metadata.iter().find(|e| e.key == key).unwrap().offset;
    let wrong = |key: &str, problem: &str| field(key, at(key), problem);
    assert_eq!(gguf.u64("absent"), Ok(None));
    assert_eq!(gguf.u64("u64"), Ok(Some(1 << 40)));
    assert_eq!(gguf.u64("u8"), Ok(Some(200)));
    assert_eq!(
        gguf.u64("i64"),
        Err(wrong("i64", "wanted a non-negative integer, found a value of type i64"))
    );
    assert_eq!(gguf.f32("f64"), Ok(Some(2.5)));
    assert_eq!(gguf.f32("u8"), Err(wrong("u8", "wanted a float, found a value of type u8")));
    assert_eq!(gguf.bool("f32"), Err(wrong("f32", "wanted a bool, found a value of type f32")));
    assert_eq!(gguf.str("tokens"), Err(wrong("tokens", "wanted a string, found a value of type array")));
    assert_eq!(gguf.array("bool"), Err(wrong("bool", "wanted an array, found a value of type bool")));
    let tokens = gguf.array("tokens").unwrap().unwrap();
    assert_eq!(tokens.strings().unwrap().collect::<Vec<_>>(), ["a", "", "größe"]);
    let error = tokens.f32s().map(|_| ()).unwrap_err();
    assert_eq!(error, field("array", at("tokens") + 12, "wanted floats, found 3 of type string"));
    let nested = gguf.array("nested").unwrap().unwrap();
    let inner: Vec<_> = nested.values().collect();
    let Value::Array(bools) = inner[0] else { panic!("{:?}", inner[0]) };
    assert_eq!(bools.values().collect::<Vec<_>>(), [Value::Bool(false), Value::Bool(true)]);
}

#[test]
fn gguf_writer() {
    let attempt = |name: &str, shape: &[u64], ty, bytes: usize| {
        let spec = TensorSpec { name: name.into(), shape: shape.into(), ty };
        let mut give = |_: &_, buffer: &mut Vec<u8>| -> Result<(), WriteError> {
            buffer.resize(bytes, 0);
            Ok(())
        };
        match write(&mut Vec::new(), &Metadata::default(), &[spec], &mut give) {
            Err(WriteError::Format(error)) => error.to_string(),
            other => format!("{other:?}"),
        }
    };
    let long = "x".repeat(64);
    assert_eq!(attempt("w", &[4], TensorType::F32, 16), "Ok(())");
    assert_eq!(attempt("w", &[4], TensorType::F32, 15), "tensor w at byte 64: 15 bytes were given for 16");
    assert_eq!(
        attempt("w", &[33], TensorType::Q8_0, 34),
        "tensor w at byte 24: GGUF cannot hold shape [33] as Q8_0"
    );
    assert_eq!(
        attempt("w", &[4], TensorType::U8, 4),
        "tensor w at byte 24: GGUF cannot hold shape [4] as U8"
    );
    assert_eq!(
        attempt("w", &[1; 5], TensorType::F32, 4),
        "tensor w at byte 24: shape [1, 1, 1, 1, 1] is empty or has more than 4 dimensions"
    );
    assert_eq!(
        attempt(&long, &[1], TensorType::F32, 4),
        format!("tensor {long} at byte 24: the name is empty, longer than 63 bytes or occurs twice")
    );

    let mut metadata = Metadata::default();
    metadata.put("key", Value::U8(1)).unwrap();
    assert_eq!(metadata.put("key", Value::U8(1)), Err(field("key", 16, "the key is empty or occurs twice")));
    assert_eq!(
        metadata.put("general.alignment", Value::U32(3)),
        Err(field("general.alignment", 16, "must be a power of two below 2^32"))
    );
}

#[test]
fn safetensors_headers() {
    let json =
        |problem: &str| FormatError::Json { what: "safetensors header".into(), problem: problem.into() };
    let a = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let b = |dtype: &str, shape: &str, range: &str| {
        safetensors(
            &format!(r#"{{{a},"b":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{range}}}}}"#),
            16,
        )
    };
    let cases = [
        (vec![1, 2], truncated("safetensors header length", 0, 8, 2)),
        (
            u64::MAX.to_le_bytes().to_vec(),
            FormatError::Limit {
                field: "safetensors header length".into(),
                value: u64::MAX,
                limit: 100_000_000,
            },
        ),
        (99u64.to_le_bytes().to_vec(), truncated("safetensors header", 8, 107, 8)),
        (
            safetensors("[]", 0),
            json(
                "invalid type: sequence, expected an object with a member for each tensor at line 1 column 0",
            ),
        ),
        (safetensors(&format!("{{{a},{a}}}"), 8), json("a occurs twice at line 1 column 57")),
        (b("F32", "[2]", "[8,24]"), truncated("tensor b", 116, 140, 132)),
        (b("F32", "[2]", "[8,12]"), json("invalid shape, data type, or offset for tensor")),
        (b("F32", "[1]", "[12,16]"), tensor("b", 117 + 12, "does not begin where the tensor before it ends")),
        (b("F32", "[1]", "[8,12]"), json("the tensors do not end at the end of the file, byte 132")),
        (b("F8_E4M3", "[8]", "[8,16]"), tensor("b", 120 + 8, "element type F8_E4M3 is not supported")),
        (
            safetensors(r#"{"b":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#, 0),
            tensor("b", 62, "shape [0] is empty or has more than 8 dimensions"),
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(safetensors_file::parse(&bytes), Err(error));
    }
    assert_eq!(safetensors_file::parse(&b("BF16", "[2,2]", "[8,16]")).unwrap().len(), 2);
}

/// Ranges that add up beyond 64 bits: the crate alone would overflow.
#[test]
fn safetensors_offsets_beyond_64_bits() {
    let part = (1u64 << 61) - 1;
    let tensors: Vec<String> = (0..8)
        .map(|i| {
            format!(
                r#""{i}":{{"dtype":"U8","shape":[{part}],"data_offsets":[{},{}]}}"#,
                i * part,
                (i + 1) * part
            )
        })
        .collect();
    let bytes = safetensors(&format!("{{{}}}", tensors.join(",")), 8);
    assert!(matches!(safetensors_file::parse(&bytes), Err(FormatError::Truncated { .. })));
}
