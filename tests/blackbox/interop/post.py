# The standard library's client: PORT MODE CA PASSWORD MECHANISM initial|none SENDER OPTIONS RECIPIENT..., the message on standard input.
import smtplib
import ssl
import sys

port, mode, ca, password, mechanism, response, sender, options, *recipients = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca)
if mode == "Submission":
    client = smtplib.SMTP("localhost", int(port), timeout=60)
    client.starttls(context=trust)
else:
    client = smtplib.SMTP_SSL("localhost", int(port), timeout=60, context=trust)
client.ehlo()
client.user, client.password = "alice", password
try:
    client.auth(mechanism, getattr(client, "auth_" + mechanism.lower()), initial_response_ok=response == "initial")
except smtplib.SMTPAuthenticationError as error:
    sys.exit(3 if error.smtp_code == 535 else str(error))
refused = client.sendmail(sender, recipients, sys.stdin.buffer.read(), mail_options=options.split())
for recipient, (code, text) in refused.items():
    print(recipient, code, text)
client.quit()
