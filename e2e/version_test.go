package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var programs = []string{"bloq-agent", "bloq-token", "bloq-sandbox"}

// release is what the file VERSION says.
func release(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// What make builds names the release and the commit. What Go builds without it
// names the release, and the commit if the program may ask Go for it.
func TestEveryProgramSaysItsVersion(t *testing.T) {
	readSources(t)
	made := t.TempDir()
	if out, err := exec.Command("make", "-s", "-C", "..", "build", "BIN="+made, "COMMIT=0123456789ab").CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	number := regexp.QuoteMeta(release(t))
	byMake := regexp.MustCompile(`^[a-z-]+ ` + number + ` \(0123456789ab\)\n$`)
	byGo := regexp.MustCompile(`^[a-z-]+ ` + number + ` \(([0-9a-f]{12}(-dirty)?|unknown commit)\)\n$`)
	for dir, want := range map[string]*regexp.Regexp{made: byMake, bin: byGo} {
		for _, name := range programs {
			for _, how := range []string{"version", "--version"} {
				out, err := exec.Command(filepath.Join(dir, name), how).CombinedOutput()
				if err != nil || !want.Match(out) || !strings.HasPrefix(string(out), name+" ") {
					t.Errorf("%s %s: %v, %q, want %s", name, how, err, out, want)
				}
			}
		}
	}
}

// A repository with our Makefile, in which make packages prints the version that
// a package would have.
func TestPackagesAreSortedByTheirVersions(t *testing.T) {
	for _, name := range []string{"git", "make"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("not installed: " + name)
		}
	}
	makefile, err := filepath.Abs("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	dir, day := t.TempDir(), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	sh := func(script string) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_COMMITTER_DATE="+day.Format(time.RFC3339),
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func() {
		day = day.AddDate(0, 0, 1)
		sh("git commit -qam x --allow-empty")
	}
	var versions []string
	made := func(want string) {
		t.Helper()
		got := sh("make -s packages")
		if !regexp.MustCompile(`^` + want + `$`).MatchString(got) {
			t.Errorf("the version is %q, want %s", got, want)
		}
		versions = append(versions, got)
	}

	sh("git init -q && cp " + makefile + " . && echo 1.0.0 >VERSION && mkdir packaging && echo 'echo $PACKAGE_VERSION' >packaging/build && chmod +x packaging/build && git add .")
	commit()
	made(`1\.0\.0~git20261202000000\.[0-9a-f]{12}`)
	commit()
	made(`1\.0\.0~git20261203000000\.[0-9a-f]{12}`)
	sh("touch new")
	made(`1\.0\.0~git20261203000000\.[0-9a-f]{12}\.dirty`)
	sh("rm new")
	commit()
	sh("git tag v1.0.0")
	made(`1\.0\.0`)
	commit()
	made(`1\.0\.0\+git20261205000000\.[0-9a-f]{12}`)
	sh("echo 1.0.1 >VERSION")
	commit()
	made(`1\.0\.1~git20261206000000\.[0-9a-f]{12}`)
	sh("rm -r .git")
	made(`1\.0\.1~git19700101000000\.unknown`)

	versions = versions[:len(versions)-1]
	for i := range len(versions) - 1 {
		for tool, script := range map[string]string{
			"dpkg": `dpkg --compare-versions '` + versions[i] + `-1' lt '` + versions[i+1] + `-1'`,
			"rpm":  `test "$(rpm --eval '%{lua: print(rpm.vercmp("` + versions[i] + `", "` + versions[i+1] + `"))}')" = -1`,
		} {
			if _, err := exec.LookPath(tool); err == nil {
				sh(script)
			}
		}
	}
}

// Who reads the list of changes finds the release there that the programs name.
func TestTheReleaseIsInTheListOfChanges(t *testing.T) {
	b, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	_, newest, _ := strings.Cut(string(b), "\n## ")
	newest, _, _ = strings.Cut(newest, "\n")
	if number, date, _ := strings.Cut(newest, ", "); number != release(t) || date != "not released yet" && !regexp.MustCompile(`^\d{4}-\d\d-\d\d$`).MatchString(date) {
		t.Errorf("the newest of CHANGELOG.md is %q, want %s and its date, or \"not released yet\"", newest, release(t))
	}
}
