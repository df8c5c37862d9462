package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// A mutant is one patch.
type mutant struct {
	name    string // the file's, without its suffix
	file    string
	promise string
	tests   []test
}

// A test is one that must notice.
type test struct {
	pkg  string   // ./accounts
	name string   // TestX, or TestX/part
	args []string // flags for go test
	env  []string // VARIABLE=value
}

func (t test) String() string { return t.pkg + " " + t.name }

func readMutants(dir, only string) ([]mutant, error) {
	if only == "" {
		only = "*"
	}
	files, err := filepath.Glob(filepath.Join(dir, only+".patch"))
	if err != nil {
		return nil, err
	}
	var list []mutant
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m, err := parseMutant(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if m.file, err = filepath.Abs(file); err != nil {
			return nil, err
		}
		m.name = strings.TrimSuffix(filepath.Base(file), ".patch")
		list = append(list, m)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("there is no %s.patch in %s", only, dir)
	}
	return list, nil
}

var (
	testName = regexp.MustCompile(`^(Test|Fuzz)\w+(/\S+)?$`)
	variable = regexp.MustCompile(`^[A-Z][A-Z0-9_]*=`)
)

func parseMutant(text string) (mutant, error) {
	var m mutant
	head, _, found := strings.Cut(text, "\ndiff --git ")
	if !found {
		return m, errors.New("there is no diff in it")
	}
	for line := range strings.Lines(head) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "promise":
			m.promise = value
		case "tests":
			t, err := parseTest(value)
			if err != nil {
				return m, err
			}
			m.tests = append(m.tests, t)
		case "":
		default:
			return m, fmt.Errorf("neither promise nor tests: %q", line)
		}
	}
	if m.promise == "" || len(m.tests) == 0 {
		return m, errors.New("it takes a promise and tests")
	}
	return m, nil
}

func parseTest(line string) (test, error) {
	words := strings.Fields(line)
	if len(words) < 2 || !strings.HasPrefix(words[0], "./") || !testName.MatchString(words[1]) {
		return test{}, fmt.Errorf("tests: wants a package and a test, not %q", line)
	}
	t := test{pkg: words[0], name: words[1]}
	for _, word := range words[2:] {
		switch {
		case variable.MatchString(word):
			t.env = append(t.env, word)
		case word[0] == '-':
			t.args = append(t.args, word)
		default:
			return test{}, fmt.Errorf("tests: neither a variable nor a flag: %q", word)
		}
	}
	return t, nil
}
