//! The inner loops, one file per instruction set. Nothing here is called but through [`crate::dispatch`].

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16_avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_codes;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_i8mm;
#[cfg(target_arch = "aarch64")]
mod neon_int8;
#[cfg(target_arch = "aarch64")]
mod neon_tiles;
#[cfg(target_arch = "x86_64")]
pub(crate) mod ops_avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod ops_avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod ops_neon;
pub(crate) mod ops_scalar;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod vector_ops;
