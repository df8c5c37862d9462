package ipc

// ShellWord is s as a shell must see it to take it for one word: for hints,
// which are typed as they stand.
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
	if plain {
		return s
	}
	return string(append(quoted, '\''))
}
