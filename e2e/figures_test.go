package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// What make test prints is a figure, a skip or a failure, and nothing unasked.
func TestMakeTestPrintsWhatIsAskedFor(t *testing.T) {
	if _, err := exec.LookPath("awk"); err != nil {
		t.Skip("no awk")
	}
	const passed = "=== RUN   TestA\n=== PAUSE TestA\n=== CONT  TestA\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/x (0.00s)\nPASS\n?   \tbloq-agent/cmd\t[no test files]\n"
	const asked = "    a_test.go:7: 12 rounds\n        and a second line\n    b.go:7: {Soft:1}\n    --- SKIP: TestB/x (0.00s)\n--- SKIP: TestB (0.00s)\n" +
		"searched 9 worlds for 8 secrets in 7 places\nok  \tbloq-agent/a\t0.1s\n"
	for _, c := range []struct {
		in, out string
		passes  bool
	}{
		{passed + asked + "exit 0\n", asked, true},
		{passed + asked + "exit 1\n", asked, false},
		{"--- FAIL: TestC (0.00s)\npanic: x\n\ngoroutine 1:\nFAIL\nexit 2\n", "--- FAIL: TestC (0.00s)\npanic: x\n\ngoroutine 1:\nFAIL\n", false},
		{`    writer.go:27: {"level":"debug"}` + "\nexit 0\n", `    writer.go:27: {"level":"debug"}` + "\nlines above that are no figure, no skip and no failure: 1\n", false},
		{"2026/11/26 http: TLS handshake error\nfound\nok  \tx\nexit 0\n", "2026/11/26 http: TLS handshake error\nfound\nok  \tx\nlines above that are no figure, no skip and no failure: 2\n", false},
	} {
		cmd := exec.Command("awk", "-f", "figures.awk")
		cmd.Stdin = strings.NewReader(c.in)
		out, err := cmd.CombinedOutput()
		if string(out) != c.out || (err == nil) != c.passes {
			t.Errorf("%q becomes %q, %v", c.in, out, err)
		}
	}
}
