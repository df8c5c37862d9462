package store

// busIsOptional: the Secret Service is reached over D-Bus.
const busIsOptional = false
