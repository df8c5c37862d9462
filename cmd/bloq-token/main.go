// Bloq-token prints the current Client Access Token in the form that a tool
// wants, and is the credential helper that the tool runs. It asks the daemon,
// prints the answer and exits; it never prompts, opens no browser and starts no
// daemon.
//
// It knows nothing of the forms themselves: they are rendered in the daemon,
// where they are tested and upgraded once. What it knows of each is in the
// tables of dialects.go: when to read stdin, and what to answer when nobody is
// there to ask.
package main

import (
	"errors"
	"os"

	"bloq-agent/cmd/internal/version"
	"bloq-agent/ipc"
	"bloq-agent/ipc/client"
)

func main() {
	os.Exit(run(os.Args))
}

func run(argv []string) int {
	o, err := parse(argv, os.Getenv)
	if err != nil {
		code := fail(ipc.ExitUsage, err.Error(), "bloq-token --help")
		if _, profile := err.(profileError); profile && o.form.nothing != nil {
			return o.nothing()
		}
		return code
	}
	switch {
	case o.help:
		return write(os.Stdout, []byte(usage))
	case o.version:
		return write(os.Stdout, []byte("bloq-token "+version.String()+"\n"))
	}
	socket, err := client.Locate(o.socket)
	if err != nil {
		return fail(ipc.ExitUsage, socket+": "+err.Error(), "")
	}
	call := ipc.Call{Args: o.args}
	if o.form.env != "" {
		value := os.Getenv(o.form.env)
		if len(value) > maxVariable {
			return fail(ipc.ExitUsage, o.form.env+" is longer than 64 KiB", "")
		}
		if value != "" {
			call.Env = []string{o.form.env + "=" + value}
		}
	}
	if code := write(os.Stdout, []byte(o.form.hello)); code != 0 {
		return code
	}
	in := &input{file: os.Stdin}
	if o.form.stdin == lines {
		return converse(socket, o, call, in)
	}
	if o.form.stdin == toEOF || o.form.stdin == toEOFWithArgs && len(o.args) > 0 {
		if call.Stdin, err = in.all(); err != nil {
			return fail(ipc.ExitUsage, "stdin: "+err.Error(), "")
		}
	}
	return ask(socket, o, call)
}

// ask asks the daemon once, and writes what it says.
func ask(socket string, o options, call ipc.Call) int {
	o.request.Body = ipc.AppendCall(nil, call)
	a, err := client.Do(socket, o.request)
	if err == nil {
		return show(a)
	}
	code := failDo(err, o.socket)
	if o.form.nothing == nil {
		return code
	}
	return o.nothing()
}

// nothing answers in the tool's own words that there is nothing for it.
func (o options) nothing() int {
	n := o.form.nothing(o.args)
	if code := write(os.Stdout, []byte(n.stdout)); code != 0 {
		return code
	}
	return n.exit
}

// converse asks the daemon once for each line of stdin, until it ends.
func converse(socket string, o options, call ipc.Call, in *input) int {
	for {
		line, err := in.line()
		if err != nil {
			return fail(ipc.ExitUsage, "stdin: "+err.Error(), "")
		}
		if line == nil {
			return ipc.ExitOK
		}
		call.Stdin = line
		if code := ask(socket, o, call); code != 0 {
			return code
		}
	}
}

// show writes a dialect's answer: the body is stdout's part, then stderr's.
func show(a client.Answer) int {
	exit, stdout := a.Number(ipc.HeaderExit), a.Number(ipc.HeaderStdout)
	if a.Status != 200 || exit < 0 || exit > 125 || stdout < 0 || stdout > len(a.Body) {
		return failStatus(a, exit)
	}
	if code := write(os.Stdout, a.Body[:stdout]); code != 0 {
		return code
	}
	if code := write(os.Stderr, []byte(ipc.VisibleLines(string(a.Body[stdout:])))); code != 0 {
		return code
	}
	return exit
}

// failStatus is for what the daemon could not render: overload, a dialect of
// a newer helper.
func failStatus(a client.Answer, exit int) int {
	if exit <= 0 || exit > 125 {
		exit = ipc.ExitInternal
	}
	return fail(exit, "daemon answered with status "+itoa(a.Status), "bloq-agent status")
}

func failDo(err error, socket string) int {
	var c *client.ConnectError
	switch {
	case errors.As(err, &c):
		return fail(ipc.ExitNoDaemon, err.Error(), client.StartHint(socket))
	case err == client.ErrForeignServer:
		return fail(ipc.ExitNoDaemon, err.Error(), "")
	case err == client.ErrTimeout, err == client.ErrNoAnswer, err == client.ErrCutAnswer:
		return fail(ipc.ExitUnavailable, err.Error(), "bloq-agent status")
	}
	return fail(ipc.ExitInternal, err.Error(), "")
}

func fail(code int, text, hint string) int {
	text = "bloq-token: error: " + ipc.Visible(text) + "\n"
	if hint != "" {
		text += "bloq-token: hint: " + ipc.Visible(hint) + "\n"
	}
	// If stderr cannot be written, the exit code still tells.
	_, _ = os.Stderr.WriteString(text)
	return code
}

func write(f *os.File, b []byte) int {
	if len(b) == 0 {
		return ipc.ExitOK
	}
	// A token cut by a full disk or a closed pipe must not look like success.
	if _, err := f.Write(b); err != nil {
		return fail(ipc.ExitInternal, err.Error(), "")
	}
	return ipc.ExitOK
}

func itoa(n int) string {
	return string([]byte{byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)})
}
