# Reads what `go test -v` prints, and then a line "exit CODE". Prints figures, skips
# and failures, and exits with CODE. A line that is none of these, where all tests
# pass, comes from something that talks unasked: that is a failure as well, or there
# are soon so many that nobody reads the figures.

/^exit [0-9]+$/ { code = $2; next }
/^(=== |PASS$|\?)/ || /^ *--- PASS/ { next }
{ print; fflush() }

# What a test logs, but for the JSON of our own log; its further lines are indented.
/^ +[a-z0-9_]+\.go:[0-9]+: [{]"/ { strays++; next }
/^ +[a-z0-9_]+\.go:[0-9]+: / || /^        / { next }
/^ *--- (SKIP|FAIL)/ || /^(ok|FAIL)/ { next }
/^searched [0-9]+ worlds/ { next }
{ strays++ }

END {
	if (code == 0 && strays > 0) {
		print "lines above that are no figure, no skip and no failure: " strays
		code = 1
	}
	exit code
}
