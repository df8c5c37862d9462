package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"bloq-agent/ipc"
)

// asProgram makes the test binary the program.
const asProgram = "BLOQ_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// poison is what no terminal may be sent as it is.
const poison = "MARK\x1b]0;owned\a\x1b[2J\u009b31m\u202etxt\u0085\r\x7f\x9b"

// serve runs a server that answers every call in the same way.
func serve(t *testing.T, answer http.HandlerFunc) string {
	dir, err := os.MkdirTemp("", "bloq-terminal-") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: answer}
	go func() { _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = s.Close() })
	return socket
}

// Stderr is for people, in every form. Stdout is a protocol's.
func TestNothingFromOutsideMovesTheCursor(t *testing.T) {
	socket := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		const out = "out\n"
		w.Header().Set(ipc.HeaderExit, "3")
		w.Header().Set(ipc.HeaderStdout, fmt.Sprint(len(out)))
		_, _ = w.Write([]byte(out + poison + "\nsecond line\n"))
	})
	for form := range dialects {
		stdin := ""
		if dialects[form].stdin != never {
			stdin = "a line\n"
		}
		said := says(t, stdin, nil, "--socket", socket, form)
		if !strings.Contains(said, "MARK") || !strings.Contains(said, "\nsecond line\n") {
			t.Errorf("%s shows nothing of what it was told, so this proves nothing: %s", form, said)
		}
	}
	for name, s := range map[string][]string{
		"form": {poison}, "flag": {"--" + poison}, "argument": {"token", poison}, "profile": {"-p", poison}, "duration": {"--min-ttl", poison},
		"timeout": {"--timeout", poison}, "socket": {"--socket", "/nonexistent/" + poison}, "long socket": {"--socket", "/" + strings.Repeat("x", 120) + poison},
		"environment": nil,
	} {
		if said := says(t, "", []string{"BLOQ_AGENT_SOCK=/nonexistent/" + poison}, s...); !strings.Contains(said, "MARK") {
			t.Errorf("%s: nothing is shown of what it was told, so this proves nothing: %s", name, said)
		}
	}
}

// says returns what is on stderr, having looked at it.
func says(t *testing.T, stdin string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{asProgram + "=1", "HOME=/nonexistent"}, env...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait() // how it exits is not the question
	if !late.Stop() {
		t.Errorf("%q did not end", args)
	}
	said := stderr.String()
	if !utf8.ValidString(said) || strings.ContainsFunc(said, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) {
		t.Errorf("%q writes %q", args, said)
	}
	return said
}
