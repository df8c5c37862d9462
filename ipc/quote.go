package ipc

// ShellWord is s as a shell must see it to take it for one word: for hints,
// which are typed as they stand. What a terminal would obey is written in octal.
func ShellWord(s string) string {
	plain := s != ""
	quoted := []byte{'\''}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.', c == '/', c == ':', c == '@', c == '%', c == '+', c == ',', c == '=':
		default:
			plain = false
		}
		if s[i] == '\'' {
			quoted = append(quoted, `'\'`...)
		}
		quoted = append(quoted, s[i])
	}
	switch {
	case plain:
		return s
	case Visible(s) != s:
		return octalWord(s)
	}
	return string(append(quoted, '\''))
}

// octalWord uses $'…', which bash, zsh and ksh know.
func octalWord(s string) string {
	word := []byte("$'")
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '\'' || c == '\\' {
			word = append(word, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
			continue
		}
		word = append(word, c)
	}
	return string(append(word, '\''))
}
