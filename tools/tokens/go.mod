// A server that gives tokens for registries, with which the tests of container images exchange theirs.
module longshore.test/tools/tokens

go 1.26.0

require github.com/docker/distribution v2.8.3+incompatible

require (
	github.com/docker/libtrust v0.0.0-20160708172513-aabc10ec26b7 // indirect
	github.com/gorilla/mux v1.8.1 // indirect
	github.com/sirupsen/logrus v1.10.2 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
