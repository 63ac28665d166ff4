package spec

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

var (
	errNoFile  = errors.New("is not a file; name one")
	errLarge   = errors.New("holds more than")
	errNoWords = errors.New("is a pipe out of which nothing comes; write to it, or name a file")
)

const (
	pipeOpens = 5 * time.Second // until somebody writes to a pipe
	pipeWait  = time.Minute     // that he may keep silent
)

// readLimit is how long a file may take that is read while somebody waits to connect.
const readLimit = 2 * time.Second

// overdue are the files whose reading has taken longer, and has not ended yet. It is not begun again before it has.
var overdue sync.Map

// ReadFile reads a file that is no longer than most, and no pipe or device: those might never end, or give nothing the next time. One on a
// mount whose server is away is an error after readLimit.
func ReadFile(path string, most Bytes) ([]byte, error) {
	return timely(path, func() ([]byte, error) { return readFile(path, most) })
}

func timely(path string, read func() ([]byte, error)) ([]byte, error) {
	late := fmt.Errorf("%s has not been read within %v: is it on a mount that does not answer?", path, readLimit)
	if _, is := overdue.Load(path); is {
		return nil, late
	}
	type answer struct {
		text []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := read()
		answers <- answer{text, err}
		overdue.Delete(path)
	}()
	select {
	case a := <-answers:
		return a.text, a.err
	case <-time.After(readLimit):
	}
	overdue.Store(path, true)
	if len(answers) > 0 { // it has ended meanwhile, and may not have seen this
		overdue.Delete(path)
	}
	return nil, late
}

func readFile(path string, most Bytes) ([]byte, error) {
	file, err := openNow(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %w", path, cmp.Or(err, errNoFile))
	}
	text, err := readUpTo(file, most)
	if errors.Is(err, errLarge) {
		err = fmt.Errorf("%s %w", path, err)
	}
	return text, err
}

// ReadKeyPair is tls.LoadX509KeyPair of files as ReadFile reads them.
func ReadKeyPair(cert, key string) (tls.Certificate, error) {
	certificate, err := ReadFile(cert, MiB)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := ReadFile(key, MiB)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certificate, private)
}

// openNow does not wait for anybody to open a pipe's other end.
func openNow(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func readUpTo(from io.Reader, most Bytes) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, int64(most)+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > int(most):
		return nil, fmt.Errorf("%w %s", errLarge, most)
	}
	return text, nil
}

// A pipe is read until its writers have closed it, as long as something comes. Before one has opened it, it looks as if they had.
type pipe struct {
	*os.File
	begun bool
}

// Read is part of io.Reader.
func (p *pipe) Read(b []byte) (int, error) {
	const look = 50 * time.Millisecond
	opens := time.Now().Add(pipeOpens)
	_ = p.SetReadDeadline(time.Now().Add(pipeWait)) // what can't have one is not waited for
	for {
		n, err := p.File.Read(b)
		p.begun = p.begun || n > 0
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), err == io.EOF && !p.begun && time.Now().After(opens):
			return n, errNoWords
		case err != io.EOF || p.begun:
			return n, err
		}
		time.Sleep(look)
	}
}
