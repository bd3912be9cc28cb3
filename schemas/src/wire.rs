//! Messages between a replica and the coordinator, as JSON over HTTP.
