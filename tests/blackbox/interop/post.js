// PORT MODE CA PASSWORD MECHANISM SENDER RECIPIENT..., the message on standard input.
const nodemailer = require('nodemailer');
const fs = require('fs');

const [port, mode, ca, pass, authMethod, from, ...to] = process.argv.slice(2);
const transport = nodemailer.createTransport({
  host: 'localhost',
  port: Number(port),
  secure: mode === 'Submissions',
  requireTLS: true,
  tls: { ca: fs.readFileSync(ca) },
  auth: { user: 'alice', pass },
  authMethod,
});
transport.sendMail({ envelope: { from, to }, raw: fs.readFileSync(0) }).then(
  (info) => console.log('rejected:', info.rejected.join(' ')),
  (error) => {
    console.error(error.code, error.message);
    process.exit(error.responseCode === 535 ? 3 : 1);
  },
);
