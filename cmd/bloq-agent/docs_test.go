package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// words is the page without what its macros do, as one line: "Fl -json" is
// --json there.
func words(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile("../../packaging/man/" + page)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`Fl -?|, -`).ReplaceAllStringFunc(string(b), func(s string) string {
		return strings.Replace(strings.Replace(s, "Fl ", "-", 1), ", ", " -", 1)
	})
	return " " + strings.Join(strings.Fields(text), " ") + " "
}

// A command or a flag that the page does not name is one that nobody finds.
func TestThePageNamesEveryCommandAndFlag(t *testing.T) {
	page, flag := words(t, "bloq-agent.1"), regexp.MustCompile(`(?m)^ +(?:-., )?(--[a-z-]+)`)
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if !strings.Contains(page, " "+c.Name()+" ") {
			t.Errorf("bloq-agent.1 does not name the command %q", c.CommandPath())
		}
		for _, m := range flag.FindAllStringSubmatch(c.LocalFlags().FlagUsages(), -1) {
			if !strings.Contains(page, m[1]+" ") {
				t.Errorf("bloq-agent.1 does not name %s of %q", m[1], c.CommandPath())
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(rootCommand())
}

func TestThePageNamesEveryFormAndFlagOfTheHelper(t *testing.T) {
	page := words(t, "bloq-token.1")
	usage, err := exec.Command("go", "run", "../bloq-token", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^  (?:-p, )?(--[a-z-]+|[a-z]+)\s`).FindAllStringSubmatch(string(usage), -1) {
		found++
		if !strings.Contains(page, m[1]+" ") {
			t.Errorf("bloq-token.1 does not name %s", m[1])
		}
	}
	if found < 8 {
		t.Errorf("only %d forms and flags in the usage", found)
	}
}

// The keys are those of the structs that the file is read into.
func TestThePageAndTheSampleNameEveryKey(t *testing.T) {
	var source []byte
	for _, file := range []string{"config.go", "sinks.go"} {
		b, err := os.ReadFile("../../daemon/config/" + file)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, b...)
	}
	sample, err := os.ReadFile("../../packaging/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	page := words(t, "bloq-agent-config.5")
	found := 0
	for _, m := range regexp.MustCompile("`toml:\"([a-z_]+)\"`").FindAllStringSubmatch(string(source), -1) {
		found++
		if !strings.Contains(page, m[1]) {
			t.Errorf("bloq-agent-config.5 does not name %s", m[1])
		}
		if !strings.Contains(string(sample), m[1]) {
			t.Errorf("packaging/config.toml does not name %s", m[1])
		}
	}
	if found < 18 {
		t.Errorf("only %d keys in the source", found)
	}
}

func TestThePagesHaveNoMistake(t *testing.T) {
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("no man: apt-get install -y --no-install-recommends man-db")
	}
	pages, err := filepath.Glob("../../packaging/man/*")
	if err != nil || len(pages) != 4 {
		t.Fatalf("%v, %v", pages, err)
	}
	for _, page := range pages {
		cmd := exec.Command("man", "--warnings=w", "-l", "-Tutf8", "-Pcat", page)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80")
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if err := cmd.Run(); err != nil || complaints.Len() > 0 {
			t.Errorf("%s: %v\n%s", page, err, complaints.String())
		}
	}
}

// Each shell takes its script, and bash completes by it.
func TestCompletionInEachShell(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "bloq-agent")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for shell, script := range map[string]string{
		"bash": `source /usr/share/bash-completion/bash_completion && source <(bloq-agent completion bash)
			COMP_WORDS=(bloq-agent lo) COMP_CWORD=1 COMP_LINE='bloq-agent lo' COMP_POINT=13 COMP_TYPE=9
			__start_bloq-agent bloq-agent lo bloq-agent; printf '%s\n' "${COMPREPLY[@]}"`,
		"zsh":  `bloq-agent completion zsh >$HOME/c && zsh -n $HOME/c && bloq-agent __complete lo`,
		"fish": `bloq-agent completion fish | source; complete -C 'bloq-agent lo'`,
	} {
		t.Run(shell, func(t *testing.T) {
			needs := shell
			if shell == "bash" {
				needs = "/usr/share/bash-completion/bash_completion"
			}
			if _, err := exec.LookPath(needs); err != nil && !exists(needs) {
				t.Skip("not installed: apt-get install -y --no-install-recommends bash-completion zsh fish")
			}
			cmd := exec.Command(shell, "-c", script)
			cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + filepath.Dir(bin) + ":" + os.Getenv("PATH")}
			out, err := cmd.CombinedOutput()
			for _, want := range []string{"lock", "login", "logout"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q, %v:\n%s", want, err, out)
				}
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
