package sink

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"syscall"
	"time"

	"bloq-agent/daemon/harden"
)

// commandTimeout is how long a command may run.
const commandTimeout = 10 * time.Second

// maxOutput is how many bytes of a command's output are kept.
const maxOutput = 4 << 10

// pipeWait is how long a child that a command left in the background may keep
// its output open.
const pipeWait = time.Second

// passed are the variables that a command gets of ours: a secret, or what
// changes how a program is loaded, is not among them.
var passed = []string{"PATH", "HOME", "USER", "LANG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"}

// environment is what the command of s runs with.
func (s Sink) environment(getenv func(string) string) []string {
	var env []string
	for _, name := range passed {
		if value := getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return append(env, "BLOQ_SINK_PATH="+s.Path, "BLOQ_PROFILE="+s.Profile)
}

// run runs argv, without a shell, in /, with stdin at its end. After timeout, or
// when ctx ends, its whole process group is killed. It returns the beginning of
// what the command wrote, without anything that looks like a token.
func run(ctx context.Context, argv, env []string, timeout time.Duration) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out bounded
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = env, "/"
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = pipeWait
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// With the limits that the daemon was started with, and not its own.
	if err = harden.Start(cmd); err == nil {
		err = cmd.Wait()
	}
	switch {
	case ctx.Err() == context.DeadlineExceeded && err != nil:
		err = fmt.Errorf("killed after %s", timeout)
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it ended well and left somebody in the background
	}
	return redact(out.b), err
}

// A bounded keeps the first maxOutput bytes.
type bounded struct{ b []byte }

func (o *bounded) Write(p []byte) (int, error) {
	o.b = append(o.b, p[:min(len(p), maxOutput-len(o.b))]...)
	return len(p), nil
}

// A command may print the file that it was called for. What looks like a part
// of a JWT, or like base64 of one, is not for the log; words and paths are
// shorter than that, or have other characters in between.
var tokenLike = regexp.MustCompile(`[A-Za-z0-9+/]{60,}|[A-Za-z0-9_-]{20,}`)

func redact(output []byte) string {
	return string(tokenLike.ReplaceAll(output, []byte("[…]")))
}
