// Why a request failed, in the words that tests compare. A kind comes from the type of an error, never from its text.
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

// failure is an error as it is printed.
type failure struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// failureOf describes an error for printing; nil stays nil.
func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	return &failure{Kind: kindOf(err), Text: err.Error()}
}

// statusError is a complete response that says no.
type statusError string

func (e statusError) Error() string { return "status " + string(e) }

// handshakeError is what went wrong while TLS was set up.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

func kindOf(err error) string {
	var lookup *net.DNSError
	var operation *net.OpError
	var handshake handshakeError
	dialing := errors.As(err, &operation) && operation.Op == "dial"
	switch {
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return "dns-nxdomain" // also a name without an IPv4 address
	case lookup != nil && isTimeout(err):
		return "dns-timeout"
	case lookup != nil:
		return "dns-other"
	case errors.Is(err, syscall.EPERM):
		return "forbidden"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect-refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "connect-unreachable"
	// EPIPE is the second write after a reset whose first sign was missed.
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case isTimeout(err) && dialing:
		return "connect-timeout"
	case dialing:
		return "connect-other" // such as no free port on this side
	case isDenied(operation):
		return "denied" // the alert `access_denied`, with which the firewall refuses
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case isTimeout(err):
		return "timeout"
	// With TLS 1.3 an alert may come only with the first read; crypto/tls wraps it in an OpError without a system error.
	case errors.As(err, &handshake), operation != nil && !errors.As(err, new(syscall.Errno)):
		return "tls"
	}
	return "http" // no HTTP, or a status other than 2xx
}

// isDenied covers an alert of the other side. Go has no exported type for what it is wrapped in.
func isDenied(operation *net.OpError) bool {
	return operation != nil && operation.Op == "remote error" && operation.Err.Error() == tls.AlertError(49).Error()
}

// isTimeout covers deadlines of contexts and connections, and the kernel's own ETIMEDOUT.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}
