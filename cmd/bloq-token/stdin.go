package main

import (
	"errors"
	"os"
)

var errTooLong = errors.New("longer than 64 KiB")

// An input is what a tool writes to us.
type input struct {
	file *os.File
	buf  []byte // read and not used yet
	end  bool
}

// fill reads once.
func (in *input) fill() error {
	if len(in.buf) > maxStdin {
		return errTooLong
	}
	chunk := make([]byte, 4<<10)
	n, err := in.file.Read(chunk)
	in.buf = append(in.buf, chunk[:n]...)
	var failed *os.PathError
	if errors.As(err, &failed) {
		return err
	}
	in.end = err != nil // io.EOF, which takes no import to tell
	return nil
}

// all is everything to the end.
func (in *input) all() ([]byte, error) {
	for !in.end {
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
	return in.buf, nil
}

// line is the next line without its end. It is nil when there is none any more.
func (in *input) line() ([]byte, error) {
	for from := 0; ; {
		for i := from; i < len(in.buf); i++ {
			if in.buf[i] == '\n' {
				line := in.buf[:i:i]
				in.buf = in.buf[i+1:]
				return line, nil
			}
		}
		from = len(in.buf)
		if in.end {
			line := in.buf // the last may have no end
			in.buf = nil
			if len(line) == 0 {
				return nil, nil
			}
			return line, nil
		}
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
}
