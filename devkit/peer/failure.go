// Why a request failed, in the words that tests compare. A kind comes from the type of an error and from the stage it
// happened in, never from its text.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// stage is a step on the way to a response.
type stage int

const (
	stageDNS stage = iota
	stageConnect
	stageTLS
	stageHTTP
)

const (
	kindDNSNotFound        = "dns-nxdomain" // also a name without an IPv4 address
	kindDNSTimeout         = "dns-timeout"
	kindDNSOther           = "dns-other"
	kindConnectRefused     = "connect-refused"
	kindConnectTimeout     = "connect-timeout"
	kindConnectUnreachable = "connect-unreachable"
	kindConnectOther       = "connect-other" // such as no free port on this side
	kindTLS                = "tls"
	kindDenied             = "denied" // the alert `access_denied`, with which the firewall refuses
	kindReset              = "reset"
	kindClosed             = "closed"
	kindTimeout            = "timeout"
	kindHTTP               = "http" // no HTTP, or a status other than 2xx
	kindInterrupted        = "interrupted"
)

// failure is an error as it is printed.
type failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// stageError remembers where an error happened.
type stageError struct {
	stage stage
	err   error
}

func (e *stageError) Error() string { return e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// inStage marks an error with its stage. When ctx was cancelled the error is only how that showed (an expired
// deadline, say), so the cancellation takes its place.
func inStage(ctx context.Context, stage stage, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		err = ctx.Err()
	}
	return &stageError{stage, err}
}

// statusError is a complete response that says no.
type statusError string

func (e statusError) Error() string { return "status " + string(e) }

// failureOf describes an error for printing; nil stays nil.
func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	return &failure{Kind: kindOf(err), Text: err.Error()}
}

func kindOf(err error) string {
	if errors.Is(err, context.Canceled) {
		return kindInterrupted
	}
	var staged *stageError
	if !errors.As(err, &staged) {
		return kindHTTP
	}
	switch staged.stage {
	case stageDNS:
		return kindOfDNS(err)
	case stageConnect:
		return kindOfConnect(err)
	}
	return kindOfExchange(staged)
}

func kindOfDNS(err error) string {
	var dnsError *net.DNSError
	switch {
	case errors.As(err, &dnsError) && dnsError.IsNotFound:
		return kindDNSNotFound
	case isTimeout(err):
		return kindDNSTimeout
	}
	return kindDNSOther
}

func kindOfConnect(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return kindConnectRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return kindConnectUnreachable
	case errors.Is(err, syscall.ECONNRESET):
		return kindReset
	case isTimeout(err):
		return kindConnectTimeout
	}
	return kindConnectOther
}

// kindOfExchange covers what can happen once there is a connection, while TLS is set up and after.
func kindOfExchange(err *stageError) string {
	switch {
	case isDenied(err):
		return kindDenied
	// EPIPE is the second write after a reset whose first sign was missed.
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return kindReset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return kindClosed
	case isTimeout(err):
		return kindTimeout
	case err.stage == stageTLS:
		return kindTLS
	}
	// With TLS 1.3 an alert may come only with the first read; crypto/tls wraps it in an OpError without a system error.
	var operation *net.OpError
	var system syscall.Errno
	if errors.As(err, &operation) && !errors.As(err, &system) {
		return kindTLS
	}
	return kindHTTP
}

// isDenied covers an alert of the other side. Go has no exported type for what it is wrapped in.
func isDenied(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error" &&
		operation.Err.Error() == tls.AlertError(49).Error()
}

// isTimeout covers deadlines of contexts and connections, and the kernel's own ETIMEDOUT.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}
