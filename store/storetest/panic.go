package storetest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const panicsWith = "BLOQ_TEST_PANIC"

// PanicsTellNothing fails if a goroutine that panics with one of values prints
// secret, which each of them holds: a panic's text goes to the journal. It runs the
// test again as a child.
func PanicsTellNothing(t *testing.T, secret string, values map[string]any) {
	t.Helper()
	if name := os.Getenv(panicsWith); name != "" {
		go panicWith(name, values[strings.TrimRight(name, "*!")])
		time.Sleep(10 * time.Second) // the panic ends the process
		return
	}
	for name := range values {
		for _, how := range []string{"", "*", "!"} {
			cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
			cmd.Env = append(os.Environ(), panicsWith+"="+name+how, "GOTRACEBACK=all")
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "panic: ") {
				t.Fatalf("%s%s: no panic: %s", name, how, out)
			}
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)), "99 97 110"} {
				if strings.Contains(string(out), form) {
					t.Errorf("%s%s: %s", name, how, out)
				}
			}
		}
	}
}

// panicWith panics with v itself, with a pointer to it, or with a text that v was
// put into before.
func panicWith(name string, v any) {
	switch {
	case strings.HasSuffix(name, "*"):
		panic(&v)
	case strings.HasSuffix(name, "!"):
		panic(fmt.Errorf("doing it with %v: %+v", v, v))
	}
	panic(v)
}
