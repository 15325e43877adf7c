//! One-to-many tables ([`crate::trits::many`]): the 32 tokens of a table's entry fill two registers.

crate::trits::many_body::many_kernels!("avx2");
