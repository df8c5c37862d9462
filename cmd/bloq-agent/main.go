// Bloq-agent is the daemon (`bloq-agent serve`) and the commands that a person
// types to log in, look and log out.
package main

import (
	"os"

	"bloq-agent/ipc"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		return report(err, root)
	}
	return ipc.ExitOK
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bloq-agent",
		Short: "keeps Bloq access tokens fresh and hands them to programs that ask",
		Long: `bloq-agent holds one Bloq login for each profile, exchanges its refresh token
for one-hour access tokens before they run out, and hands the current one to
any program of yours that asks over a Unix socket. bloq-token is the program
that asks.`,
		SilenceErrors: true, // report prints them
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().String("socket", "", "the daemon's socket (default: $BLOQ_AGENT_SOCK, else in $XDG_RUNTIME_DIR)")
	root.AddCommand(
		serveCommand(), loginCommand(), addCommand(), statusCommand(), refreshCommand(), logoutCommand(),
		keysCommand(), lockCommand(), unlockCommand(), storeCommand(), importCommand(), configCommand(), versionCommand(),
	)
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  cobra.NoArgs,
		RunE: runner(func(_ *cobra.Command, _ []string) error {
			return printf("bloq-agent %s\n", version)
		}),
	}
}
