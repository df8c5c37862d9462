// Bloq-agent is the daemon (`bloq-agent serve`) and the commands that a person
// types to log in, look and log out.
package main

import (
	"io"
	"os"
	"strings"

	"bloq-agent/cmd/internal/built"
	"bloq-agent/ipc"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	if cmd, err := root.ExecuteC(); err != nil {
		return report(err, root, cmd)
	}
	return ipc.ExitOK
}

func rootCommand() *cobra.Command {
	var asked bool
	root := &cobra.Command{
		Use:   "bloq-agent",
		Short: "keeps Bloq access tokens fresh and hands them to programs that ask",
		Long: `bloq-agent holds one Bloq login for each profile, exchanges its refresh token
for one-hour access tokens before they run out, and hands the current one to
any program of yours that asks over a Unix socket. bloq-token is the program
that asks.`,
		SilenceErrors: true, // report prints them
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			if asked {
				return printVersion()
			}
			return cmd.Help()
		}),
	}
	root.Flags().BoolVar(&asked, "version", false, "print the version")
	capture(root)
	root.CompletionOptions.DisableDefaultCmd = true // ours has the shells that we test
	root.PersistentFlags().String("socket", "", "the daemon's socket (default: $BLOQ_AGENT_SOCK, else in $XDG_RUNTIME_DIR)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return misused(cmd, "%s", firstLine(err.Error()))
	})
	root.SetHelpCommand(helpCommand(root))
	root.AddCommand(
		serveCommand(), loginCommand(), addCommand(), statusCommand(), refreshCommand(), logoutCommand(),
		keysCommand(), lockCommand(), unlockCommand(), storeCommand(), importCommand(), execCommand(), configCommand(), versionCommand(),
		completionCommand(),
	)
	return root
}

// helpCommand is cobra's, but for an exit code where there is nothing to help
// with.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "show how a command is used",
		RunE: runner(func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return fail(ipc.ExitUsage, "bloq-agent --help", "there is no command %q", strings.Join(args, " "))
			}
			return cmd.Help()
		}),
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  noArgs,
		RunE: runner(func(_ *cobra.Command, _ []string) error {
			return printVersion()
		}),
	}
}

func printVersion() error {
	return printf("bloq-agent %s\n", built.Version())
}

func completionCommand() *cobra.Command {
	shells := map[string]func(*cobra.Command, io.Writer) error{
		"bash": func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) },
		"zsh":  (*cobra.Command).GenZshCompletion,
		"fish": func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) },
	}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print a script by which a shell completes these commands",
		Long: `Print a script by which a shell completes these commands. The packages install
it; elsewhere:

    source <(bloq-agent completion bash)
    bloq-agent completion zsh > "${fpath[1]}/_bloq-agent"
    bloq-agent completion fish > ~/.config/fish/completions/bloq-agent.fish`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || shells[args[0]] == nil {
				return fail(ipc.ExitUsage, "bloq-agent completion --help", "which shell? bash, zsh or fish")
			}
			return nil
		},
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: runner(func(cmd *cobra.Command, args []string) error {
			return shells[args[0]](cmd.Root(), cmd.OutOrStdout())
		}),
	}
}
