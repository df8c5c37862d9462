package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// The sink that the README shows is one that the daemon takes.
func TestTheSinkOfTheREADME(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range strings.Split(string(text), "```toml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(block, "sink]]") {
			continue
		}
		n++
		w := newWorld(t, sandbox.Config{})
		if err := os.Mkdir(w.dir+"/prometheus", 0o700); err != nil {
			t.Fatal(err)
		}
		w.configure(block)
		w.must("", "bloq-agent", "config", "check")
		w.start("--store", "memory")
		w.login()
		w.eventually("the sink", w.holdsToken(w.dir+"/prometheus/bloq.token"))
	}
	if n != 1 {
		t.Errorf("%d sinks in the README", n)
	}
	if _, prometheus, _ := strings.Cut(string(text), "# prometheus.yml\n"); !strings.Contains(strings.Split(prometheus, "```")[0], "    follow_redirects: false ") {
		t.Error("the README has Prometheus follow redirects, with the token")
	}
}

// The commands that PROTOCOL.md tells people to type work as they stand there.
func TestTheProtocolByHand(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl: apt-get install -y --no-install-recommends curl")
	}
	text, err := os.ReadFile("../ipc/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "## 7 By hand\n")
	if !found {
		t.Fatal("PROTOCOL.md has no section 7")
	}
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login("-p", "work")
	ran := 0
	script := ""
	for line := range strings.Lines(section) {
		command, indented := strings.CutPrefix(line, "    ")
		if !indented {
			continue
		}
		if strings.HasPrefix(command, "S=") {
			script = command
			continue
		}
		ran++
		cmd := exec.Command("sh", "-c", script+strings.Replace(command, "curl ", "curl -sS --fail-with-body --max-time 1 ", 1))
		cmd.Env = w.env
		out, err := cmd.CombinedOutput()
		// The stream of events has no end; curl's 28 is our own time-out.
		endless := strings.Contains(command, "/v1/events") && cmd.ProcessState.ExitCode() == 28
		if err != nil && !endless || !strings.Contains(string(out), "work") && !strings.Contains(string(out), "Bearer eyJ") {
			t.Errorf("%s%v\n%s", command, err, out)
		}
	}
	if ran < 5 {
		t.Errorf("only %d commands", ran)
	}
}

// What README says of installing gives programs under all their names, and
// make's links are the same.
func TestInstall(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Install\n")
	section, _, _ = strings.Cut(section, "\n## ")
	w := newWorld(t, sandbox.Config{})
	if err := os.Symlink(bin, filepath.Join(w.dir, "bin")); err != nil {
		t.Fatal(err)
	}
	script := "set -e\nmkdir -p ~/.local/bin\n"
	for line := range strings.Lines(section) {
		// By hand, that is: a package is for e2e/systemd.
		command, indented := strings.CutPrefix(line, "    ")
		for _, word := range []string{"install ", "cd ", "ln "} {
			if indented && strings.HasPrefix(command, word) {
				script += command
			}
		}
	}
	w.mustSh(script)
	for _, name := range append([]string{"bloq-token"}, links...) {
		if got := w.mustSh("~/.local/bin/" + name + " --version"); !strings.HasPrefix(got, "bloq-token "+release(t)+" (") {
			t.Errorf("%s --version: %q", name, got)
		}
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(makefile), "\nLINKS = ")
	list, _, _ = strings.Cut(list, "\n")
	made := strings.Fields(list)
	for _, name := range links {
		if !slices.Contains(made, name) {
			t.Errorf("make build makes no link %s", name)
		}
	}
	if len(made) != len(links) {
		t.Errorf("make build makes %s", made)
	}
}

// Each promise of SECURITY.md names tests, and they exist; and one of them at
// least is known to fail where the promise is broken.
func TestEveryPromiseNamesItsTests(t *testing.T) {
	there := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(b), -1) {
			there[m[1]] = true
		}
		return err
	})
	must(t, err)
	text, err := os.ReadFile("../SECURITY.md")
	must(t, err)
	name := regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w+`)
	for _, n := range name.FindAllString(string(text), -1) {
		if !there[n] {
			t.Errorf("there is no %s", n)
		}
	}
	_, promises, found := strings.Cut(string(text), "| promise | held by |\n|---|---|\n")
	promises, _, ended := strings.Cut(promises, "\n\n")
	if !found || !ended {
		t.Fatal("no table of promises")
	}
	mutated := testsOfMutants(t)
	for row := range strings.Lines(promises) {
		if !name.MatchString(row) {
			t.Errorf("nothing holds: %s", row)
		}
		if !slices.ContainsFunc(name.FindAllString(row, -1), func(n string) bool { return mutated[n] }) {
			t.Errorf("no mutant in e2e/mutants shows that its tests hold: %s", row)
		}
	}
}

// testsOfMutants are those that a patch in e2e/mutants names: `make mutants` has
// seen each of them fail.
func testsOfMutants(t *testing.T) map[string]bool {
	t.Helper()
	patches, err := filepath.Glob("mutants/*.patch")
	must(t, err)
	tests := map[string]bool{}
	for _, path := range patches {
		b, err := os.ReadFile(path)
		must(t, err)
		for _, m := range regexp.MustCompile(`(?m)^tests: \S+ (\w+)`).FindAllStringSubmatch(string(b), -1) {
			tests[m[1]] = true
		}
	}
	return tests
}
