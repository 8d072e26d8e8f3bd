//! PEM files to certificates and keys: the only file that names rustls-pemfile.
