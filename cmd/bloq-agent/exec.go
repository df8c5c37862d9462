package main

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"bloq-agent/ipc"

	"github.com/spf13/cobra"
)

// What env(1) exits with where it cannot start the command.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

func execCommand() *cobra.Command {
	var profile, variable, minTTL string
	cmd := &cobra.Command{
		Use:   "exec [-p PROFILE] [--env NAME|git|npm] [--min-ttl DURATION] -- COMMAND [ARGUMENT…]",
		Short: "run a command with the token in its environment",
		Long: `Run a command with the token in $BLOQ_ACCESS_TOKEN, or in $NAME, or as a tool wants it:

  --env git   git sends it to the hosts of the profile, and to no other
              (GIT_CONFIG_COUNT and its like, after those that are there)
  --env npm   npm does, if it is the command itself: most shells drop a variable
              of such a name

With --env git, git follows no redirect from these hosts, because it would send
the token along. It fails with "The requested URL returned error: 302". Use the
URL that the server redirects to. npm follows redirects, and a preload in
NODE_OPTIONS (Node 18.19 or newer) takes the token out of its requests to other
origins.

The token is fixed for the command's life: one that runs for longer than the
token is good for, an hour at most, is better off asking bloq-token each time, or
reading a sink. And whoever may look into the process can read its environment.

The command takes the place of bloq-agent, so its exit status is the command's
own and a signal reaches it. As with env, 127 means that there is no such
command and 126 that it cannot be executed; the other exit codes of bloq-agent
mean that nothing was started.`,
		Example: `  bloq-agent exec -- ./sync.sh
  bloq-agent exec --env git -- git clone https://nodes.bloq.cloud/x.git
  bloq-agent exec --env npm -- npm install`,
		Args: cobra.MinimumNArgs(1),
		RunE: runner(func(cmd *cobra.Command, args []string) error {
			return execute(cmd, args, profile, variable, minTTL)
		}),
	}
	cmd.Flags().SetInterspersed(false) // what comes after the command is its own
	profileFlag(cmd, &profile)
	cmd.Flags().StringVar(&variable, "env", "BLOQ_ACCESS_TOKEN", "the variable that holds the token, or git or npm")
	cmd.Flags().StringVar(&minTTL, "min-ttl", "5m", "how long the token should live still; if it does not, there is a warning")
	return cmd
}

func execute(cmd *cobra.Command, args []string, profile, variable, minTTL string) error {
	if variable != "git" && variable != "npm" && !variableName.MatchString(variable) {
		return fail(ipc.ExitUsage, "bloq-agent exec --help", "--env %q: neither the name of a variable nor git or npm", variable)
	}
	least, err := ipc.ParseDuration(minTTL)
	if err != nil {
		return fail(ipc.ExitUsage, "bloq-agent exec --help", "--min-ttl %q: %v", minTTL, err)
	}
	path, err := findCommand(args[0])
	if err != nil {
		return err
	}
	l, err := dial(cmd)
	if err != nil {
		return err
	}
	t, err := l.accessToken(profile, least)
	if err != nil {
		return err
	}
	env, err := l.environment(variable, t)
	if err != nil {
		return err
	}
	if left := time.Until(t.ExpiresAt); left < least {
		complain("warning: the token is good for %s only, and %s gets no other", span(left), args[0])
	}
	return replaceProcess(path, args, env)
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// findCommand looks before anything else is done: a mistyped command should not
// cost a refresh.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil, errors.Is(err, exec.ErrDot): // who has . in $PATH wants it there
		return path, nil
	case errors.Is(err, exec.ErrNotFound) && !strings.Contains(name, "/"):
		// It skips what is not executable. env says so.
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if fi, err := os.Stat(filepath.Join(dir, name)); err == nil && fi.Mode().IsRegular() {
				return "", fail(exitNotExecutable, "", "%s: permission denied", filepath.Join(dir, name))
			}
		}
		return "", fail(exitNotFound, "", "%s: command not found", name)
	}
	return "", notStarted(name, err)
}

func notStarted(name string, err error) error {
	var sys syscall.Errno
	reason := err.Error()
	if errors.As(err, &sys) {
		reason = sys.Error()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fail(exitNotFound, "", "%s: %s", name, reason)
	}
	return fail(exitNotExecutable, "", "%s: %s", name, reason)
}

// replaceProcess returns only if it fails.
func replaceProcess(path string, args, env []string) error {
	return notStarted(args[0], syscall.Exec(path, args, env))
}

// accessToken asks for a token that lives for least still, or the best there is.
func (l link) accessToken(profile string, least time.Duration) (ipc.TokenAnswer, error) {
	var t ipc.TokenAnswer
	q := url.Values{"min_ttl": {ipc.FormatDuration(least)}}
	if profile != "" {
		q.Set("profile", profile)
	}
	err := l.get(ipc.RouteToken, q, &t)
	return t, err
}
