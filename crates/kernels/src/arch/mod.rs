//! The inner loops, one file per instruction set. Nothing here is called but through [`crate::dispatch`].

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod ops_avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod ops_avx512;
pub(crate) mod ops_scalar;
pub(crate) mod scalar;
pub(crate) mod vector_ops;
