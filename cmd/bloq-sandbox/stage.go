package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A stage is where the demo plays: a directory and the processes in it.
type stage struct {
	dir  string
	bin  string // where our programs are
	bloq hello  // what the sandbox said of itself

	sandbox, daemon, watcher *exec.Cmd
	events                   chan demoEvent
}

// A demoEvent is a line of `bloq-agent status --watch --json`.
type demoEvent struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`
	Status struct {
		Generation int       `json:"generation"`
		ExpiresAt  time.Time `json:"expires_at"`
	} `json:"status"`
}

func newStage() (*stage, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &stage{bin: filepath.Dir(self)}
	for _, name := range []string{"bloq-agent", "bloq-token"} {
		if _, err := os.Stat(filepath.Join(s.bin, name)); err != nil {
			return nil, &usageError{fmt.Sprintf("%s is not beside bloq-sandbox", name), "make demo"}
		}
	}
	s.dir, err = os.MkdirTemp("", "bloq-demo-") // 0700
	return s, err
}

// clear ends what still runs and leaves nothing behind.
func (s *stage) clear() {
	for _, cmd := range []*exec.Cmd{s.watcher, s.daemon, s.sandbox} {
		if cmd != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	_ = os.RemoveAll(s.dir)
}

// command is a program of ours that sees nothing of the person's own agent.
func (s *stage) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Env = []string{
		"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + s.dir,
		"XDG_CONFIG_HOME=" + filepath.Join(s.dir, "config"), "XDG_STATE_HOME=" + filepath.Join(s.dir, "state"),
	}
	return cmd
}

func (s *stage) startSandbox(address string) error {
	args := []string{"serve", "--listen", address, "--access-ttl", demoTTL.String(), "--state", filepath.Join(s.dir, "sandbox.json")}
	say("  $ bloq-sandbox %s &", strings.Join(args[:len(args)-2], " "))
	s.sandbox = s.command("bloq-sandbox", args...)
	s.sandbox.Stderr = os.Stderr // it escapes what it writes
	out, err := s.sandbox.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.sandbox.Start(); err != nil {
		return err
	}
	before := s.bloq.Password
	if err := json.NewDecoder(out).Decode(&s.bloq); err != nil {
		return fmt.Errorf("the sandbox did not start: %w", err)
	}
	if s.bloq.Password == "" { // a restarted sandbox knows only its hash
		s.bloq.Password = before
	}
	return nil
}

func (s *stage) stopSandbox() error {
	say("  $ kill %%bloq-sandbox")
	return stop(s.sandbox)
}

// startDaemon returns when the daemon says that it is ready (sd_notify(3)).
func (s *stage) startDaemon() error {
	say("  $ bloq-agent serve --store memory &")
	path := filepath.Join(s.dir, "notify")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { _ = ready.Close() }()
	s.daemon = s.command("bloq-agent", "serve", "--store", "memory", "--log-level", "debug", "--log-format", "json")
	s.daemon.Env = append(s.daemon.Env, "NOTIFY_SOCKET="+path)
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the daemon has its own descriptor
	s.daemon.Stderr = log
	if err := s.daemon.Start(); err != nil {
		return err
	}
	if err := ready.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := ready.Read(buf)
		if err != nil {
			return fmt.Errorf("the daemon did not get ready: %w", err)
		}
		if strings.HasPrefix(string(buf[:n]), "READY=1") {
			return nil
		}
	}
}

func (s *stage) stopDaemon() error {
	say("  $ kill %%bloq-agent")
	if err := stop(s.daemon); err != nil {
		return fmt.Errorf("the daemon did not stop cleanly: %w", err)
	}
	return nil
}

// watch follows the daemon's events.
func (s *stage) watch() error {
	s.watcher = s.command("bloq-agent", "status", "--watch", "--json")
	out, err := s.watcher.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.watcher.Start(); err != nil {
		return err
	}
	s.events = make(chan demoEvent, 64)
	go func() { // ends with the watcher
		defer close(s.events)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e demoEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				s.events <- e
			}
		}
	}()
	return nil
}

// next is the next event, within d.
func (s *stage) next(d time.Duration) (demoEvent, error) {
	select {
	case e, ok := <-s.events:
		if !ok {
			return e, errors.New("the daemon's events ended")
		}
		return e, nil
	case <-time.After(d):
		return demoEvent{}, fmt.Errorf("nothing happened for %v", d)
	}
}

// showLog is for when a step did not hold.
func (s *stage) showLog() {
	f, err := os.Open(filepath.Join(s.dir, "log"))
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	say("\n# The daemon's log")
	for lines := bufio.NewScanner(f); lines.Scan(); {
		say("%s", lines.Text())
	}
}
