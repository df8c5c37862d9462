package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// asProgram makes the test binary the program.
const asProgram = "BLOQ_TEST_AS_PROGRAM"

// poison is what no terminal may be sent as it is.
const poison = "MARK\x1b]0;owned\a\x1b[2J\u009b31m\u202etxt\u0085\r\x7f\x9b"

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "bloq-sandbox":
		main()
	case "bloq-agent", "bloq-token":
		os.Exit(hostileProgram())
	}
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// hostileProgram is what the demo runs, and shows the words of.
func hostileProgram() int {
	if c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET")); err == nil {
		_, _ = c.Write([]byte("READY=1"))
	}
	_, _ = os.Stdout.WriteString(poison + "\n")
	_, _ = os.Stderr.WriteString(poison + "\n") // the daemon's log
	return 7
}

func TestNothingFromOutsideMovesTheCursor(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"bloq-sandbox", "bloq-agent", "bloq-token"} {
		if err := copyFile(os.Args[0], filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		program string
		args    []string
	}{
		{os.Args[0], []string{poison}},
		{os.Args[0], []string{"serve", "--" + poison}},
		{os.Args[0], []string{"serve", poison}},
		{os.Args[0], []string{"serve", "--listen", poison}},
		{os.Args[0], []string{"serve", "--listen", "[fe80::1%" + poison + "]:80"}},
		{os.Args[0], []string{"serve", "--listen", "127.0.0.1:0", "--state", "/nonexistent/" + poison + "/x"}},
		{os.Args[0], []string{"serve", "--rotate", poison}},
		{os.Args[0], []string{"demo", poison}},
		{filepath.Join(dir, "bloq-sandbox"), []string{"demo"}},
	} {
		cmd := exec.Command(tt.program, tt.args...)
		cmd.Env = []string{asProgram + "=1", "HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // how it exits is not the question
		if !late.Stop() {
			t.Errorf("%q did not end", tt.args)
		}
		said := out.String()
		if !utf8.ValidString(said) || strings.ContainsFunc(said, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) {
			t.Errorf("%q writes %q", tt.args, said)
		}
		if !strings.Contains(said, "MARK") {
			t.Errorf("%q shows nothing of what it was told, so this proves nothing:\n%s", tt.args, said)
		}
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	return errors.Join(err, os.WriteFile(to, b, 0o700))
}
