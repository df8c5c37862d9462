package main

// dialects says how each form is to be called. The daemon knows the rest.
var dialects = map[string]struct {
	maxArgs int
}{
	"token":  {},
	"header": {},
	"bearer": {},
	"json":   {},
}
