//! Tensors, automatic differentiation, devices and optimisers.
//!
//! An op ([`ops`]) checks shapes, asks for an output buffer and records a command; it hangs a node on the tape if an input
//! wants a gradient. A recording is plain data ([`recording`]) that passes rewrite ([`passes`]) and a device runs: the CPU by
//! each kernel's Rust twin, a GPU by its WGSL shader ([`kernel`]). The API is eager to the reader and deferred to the device.
//!
//! ```
//! use wgtune_engine::{Device, ops};
//!
//! let device = Device::cpu();
//! let x = device.tensor(&[1.0, 2.0, 3.0], [3]).requiring_grad();
//! let loss = ops::sum(&ops::square(&x));
//! let gradients = loss.backward();
//! assert_eq!(gradients.get(&x).unwrap().to_vec().unwrap(), [2.0, 4.0, 6.0]);
//! ```

pub mod buffer;
pub mod device;
pub mod dtype;
pub mod error;
pub mod kernel;
pub mod ops;
pub mod optim;
pub mod passes;
pub mod process;
pub mod random;
pub mod real;
pub mod recording;
pub mod shape;
pub mod tape;
pub mod tensor;
pub mod testing;

pub use device::Device;
pub use dtype::DType;
pub use error::{Error, Result};
pub use shape::Shape;
pub use tape::{Gradients, checkpoint};
pub use tensor::Tensor;
