package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"bloq-agent/ipc"
)

// demoTTL is how long an access token lives in the demo instead of an hour.
const demoTTL = 6 * time.Second

const demoUsage = `usage: bloq-sandbox demo

Show the agent at work: sandbox, daemon and helper as real processes, on
loopback, in a temporary directory, in 20 seconds. bloq-agent and bloq-token
must lie beside bloq-sandbox. It exits with 0 if every step held.
`

// demo is a transcript that is made while you read: sandbox, daemon and helper
// as real processes, on loopback, in a directory that is removed at the end.
// It fails at the first step that does not hold.
func demo(args []string) (err error) {
	if len(args) > 0 && (args[0] == "--help" || args[0] == "-h") {
		_, err := io.WriteString(os.Stdout, demoUsage)
		return err
	}
	if len(args) > 0 {
		return &usageError{fmt.Sprintf("demo takes no argument %q", args[0]), "bloq-sandbox demo --help"}
	}
	s, err := newStage()
	if err != nil {
		return err
	}
	defer s.clear()
	start := time.Now()
	for _, act := range []func(*stage) error{
		demoStart, demoLogin, demoToken, demoRefreshes, demoOutage, demoReturn, demoStop,
	} {
		if err := act(s); err != nil {
			s.showLog()
			return err
		}
	}
	say("")
	say("Every step held, in %d seconds. An hour lasted %v here; nothing else was different.", int(time.Since(start).Seconds()), demoTTL)
	return nil
}

func demoStart(s *stage) error {
	title("A local Bloq, and the daemon beside it")
	if err := s.startSandbox("127.0.0.1:0"); err != nil {
		return err
	}
	say("  Access tokens live %v, so that you need not wait an hour.", demoTTL)
	return s.startDaemon()
}

func demoLogin(s *stage) error {
	title("Before anybody has logged in, the helper says what to do, and exits 3")
	if err := s.expect(3, "", "bloq-token"); err != nil {
		return err
	}
	title("Log in once; the password is used and forgotten")
	return s.expect(0, s.bloq.Password+"\n", "bloq-agent", "login", "--accounts-url", s.bloq.AccountsURL, "--user", s.bloq.Email, "--password-stdin")
}

func demoToken(s *stage) error {
	title("From now on every tool gets a current token")
	if err := s.expect(0, "", "bloq-token"); err != nil {
		return err
	}
	header, code, err := s.run("", "bloq-token", "header")
	if err != nil || code != 0 {
		return fmt.Errorf("bloq-token header: exit %d, %v", code, err)
	}
	title("And the token is good: a call of the Nodes API with it")
	return s.callNodes(strings.TrimSpace(header))
}

func demoRefreshes(s *stage) error {
	title("The daemon replaces it in time, without being asked: three refreshes")
	if err := s.watch(); err != nil {
		return err
	}
	for n := 1; n <= 3; {
		e, err := s.next(2 * demoTTL)
		if err != nil {
			return err
		}
		if e.Event == "refreshed" {
			say("  %s  refreshed, token number %d, good until %s", e.Time.Local().Format(time.TimeOnly), e.Status.Generation, e.Status.ExpiresAt.Local().Format(time.TimeOnly))
			n++
		}
	}
	return nil
}

func demoOutage(s *stage) error {
	title("Bloq goes away; the token at hand is served for as long as it is valid")
	if err := s.stopSandbox(); err != nil {
		return err
	}
	if err := s.expect(0, "", "bloq-token"); err != nil {
		return err
	}
	out, code, err := s.run("", "bloq-token", "json")
	var token struct {
		ExpiresAt time.Time `json:"expires_at"`
	}
	if err != nil || code != 0 || json.Unmarshal([]byte(out), &token) != nil {
		return fmt.Errorf("bloq-token json: exit %d, %v", code, err)
	}
	title("And not a moment longer: exit 5, and why")
	time.Sleep(time.Until(token.ExpiresAt))
	return s.expect(5, "", "bloq-token")
}

func demoReturn(s *stage) error {
	title("Bloq comes back; the next request finds out, nobody logs in again")
	if err := s.startSandbox(strings.TrimPrefix(s.bloq.AccountsURL, "http://")); err != nil {
		return err
	}
	// A request starts an attempt if the last one failed 5 s ago or more.
	time.Sleep(5 * time.Second)
	if err := s.expect(0, "", "bloq-token"); err != nil {
		return err
	}
	return s.expect(0, "", "bloq-agent", "status")
}

func demoStop(s *stage) error {
	title("A clean stop")
	if err := s.stopDaemon(); err != nil {
		return err
	}
	return s.expect(4, "", "bloq-token")
}

func (s *stage) callNodes(header string) error {
	url := s.bloq.NodesURL + "/nodes/v1/status"
	say("  $ bloq-token header | curl -H @- %s", url)
	name, value, _ := strings.Cut(header, ": ")
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set(name, value)
	answer, err := (&http.Client{Transport: &http.Transport{}}).Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return err
	}
	say("  %s  %s", answer.Status, strings.TrimSpace(string(body)))
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the Nodes API answered %s", answer.Status)
	}
	return nil
}

// expect runs a program, shows it, and fails unless it exits with want.
func (s *stage) expect(want int, stdin, name string, args ...string) error {
	say("  $ %s", strings.Join(append([]string{name}, args...), " "))
	out, code, err := s.run(stdin, name, args...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		say("  %s", shorten(strings.TrimRight(line, "\n")))
	}
	if code != 0 || want != 0 {
		say("  (exit %d)", code)
	}
	if code != want {
		return fmt.Errorf("%s exited with %d, not %d", name, code, want)
	}
	return nil
}

// run returns what a program wrote, stdout and then stderr, and its exit code.
func (s *stage) run(stdin, name string, args ...string) (string, int, error) {
	cmd := s.command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		return "", 0, err
	}
	return out.String() + errs.String(), cmd.ProcessState.ExitCode(), nil
}

// shorten keeps a token from filling the screen.
func shorten(s string) string {
	if len(s) > 200 && strings.HasPrefix(s, "eyJ") {
		return fmt.Sprintf("%s… (a JWT of %d characters)", s[:40], len(s))
	}
	return s
}

func title(text string) { say("\n# %s", text) }

// say writes for the person who watches; nobody else does if it fails.
func say(format string, args ...any) {
	_, _ = io.WriteString(os.Stdout, ipc.VisibleLines(fmt.Sprintf(format+"\n", args...)))
}

// stop ends a process that we started and waits for it.
func stop(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return cmd.Wait()
}
