package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"bloq-agent/ipc"
)

func showCallers(l link, asJSON bool) error {
	var c ipc.Callers
	if err := l.get(ipc.RouteCallers, nil, &c); err != nil {
		return err
	}
	if asJSON {
		b, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			return err
		}
		return printf("%s\n", b)
	}
	if len(c.Callers) == 0 {
		if err := printf("nobody has asked yet\n"); err != nil {
			return err
		}
	} else if err := callersTable(c.Callers); err != nil {
		return err
	}
	if c.Refused == 0 {
		return nil
	}
	return printf("%d connections of other users were refused\n", c.Refused)
}

func callersTable(list []ipc.Caller) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "PROGRAM\tUNIT\tLAST PROCESS\tLAST SEEN\tASKED FOR")
	for _, c := range list {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%s ago\t%s\n", dash(plain(c.Executable)), dash(plain(c.Unit)), c.PID, span(time.Since(c.LastSeen)), counts(c.Requests))
	}
	return w.Flush() // it reports what the lines before met
}

// counts are the kinds of request, the most frequent first.
func counts(requests map[string]uint64) string {
	kinds := slices.Sorted(maps.Keys(requests))
	slices.SortStableFunc(kinds, func(a, b string) int {
		switch {
		case requests[a] > requests[b]:
			return -1
		case requests[a] < requests[b]:
			return 1
		}
		return 0
	})
	for i, k := range kinds {
		kinds[i] = fmt.Sprintf("%s %d", k, requests[k])
	}
	return strings.Join(kinds, ", ")
}

// plain quotes a name that could move the cursor: its owner chose it.
func plain(s string) string {
	if quoted := strconv.QuoteToGraphic(s); quoted[1:len(quoted)-1] != s || strings.Contains(s, " ") {
		return quoted
	}
	return s
}
