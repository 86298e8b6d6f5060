//! One file per noun: each handler with its request, its answer and its errors.

pub(crate) mod health;
