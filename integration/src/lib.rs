//! Tests over several members, in process and as real processes.
