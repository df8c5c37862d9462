package userns

const hasNone = false
