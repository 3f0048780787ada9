"""A second score beside exact match: answers of equal meaning count as right.

docs/RESULTS.md says how the table was made. The score of exact match stays the headline.
"""

import re
from collections import Counter

from scores import percents

# {(organ, question type) of the questions for which a group holds, "" for any: groups}
# A line is a group: normal forms that answer any such question alike. All are training answers of
# VQA-RAD's development split, SLAKE or VQA-Med 2019. Yes and no are in no group.
TABLE = {
    ("", ""): """
        abscess = abcess
        horseshoe kidney = horsehoe kidney
        hepatocellular carcinoma = hepatocellular carcioma
        cardiomegaly = cardiomegal = cardiomega
        nodule = noudle
        crohn's disease = chrohn's disease
        fibromatosis colli = fibromatosis coli
        moyamoya = moya moya
        langerhans cell histiocytosis = langerhan cell histiocytosis
        hodgkin's lymphoma = hodgkin s lymphoma
        lemierre's syndrome = lemierre syndrome
        takayasu's arteritis = takayasu arteritis
        wegener's granulomatosis = wegeners granulomatosis
        zenker's diverticulum = zenker diverticulum
        5 cm = 5cm
        1 = just 1
        calcification = calcifications
        infarct = infarcts = infarcted areas
        ring enhancing lesion = ring enhancing lesions
        posterior urethral valve = posterior urethral valves
        lung = lungs
        kidney = kidneys
        breast = breasts
        heart lungs = lung heart
        heart and liver = liver and heart
        colon small bowel = small bowel colon
        rectum small bowel = small bowel rectum
        rectum colon small bowel = rectum small bowel colon = small bowel colon rectum
            = small bowel rectum colon
        brain edema brain tumor = brain tumor brain edema
        brain edema brain enhancing tumor brain non enhancing tumor
            = brain enhancing tumor brain edema brain non enhancing tumor
        atherosclerotic calcification = calcified atherosclerosis
        cerebral aneurysm = aneurysm cerebral
        metastatic breast cancer = breast cancer metastatic
        distal clavicle osteolysis = osteolysis of distal clavicle
        hepatic hemangioma = liver hemangioma
        left = left side = on left
        right = right side
        bilateral = both sides
        bilateral lungs = both lungs = both lung
        midline = in midline
        vasculature = in vasculature
        not seen = not seen here
        outside = exterior
        r frontal lobe = right frontal lobe
        right parietal = right parietal lobe
        psoas muscles = psoas major muscle
        hypodense = less dense
        gi = gastrointestinal
        axial = transverse = transverse plane
        coronal = coronal plane
        xray = xray plain film = xr plain film
        chest xray = chest radiograph
        ultrasound = us ultrasound
        flair = mr flair = mri flair = flair mri
        dwi = mri dwi = mri diffusion weighted = diffusion weighted imaging dwi
            = mr dwi diffusion weighted
        mr adc map = mr adc map app diff coeff
        t1 = mri t1 weighted
        t2 = t2 weighted = mr t2 weighted = mri t2 weighted
        non contrast ct = ct noncontrast
        iv = iv contrast
        ct with iv contrast = ct w contrast iv
        ct with gi and iv contrast = ct gi & iv contrast
        pres = posterior reversible encephalopathy syndrome pres
        abdominal aortic aneurysm = abdominal aortic aneurysm aaa
        aberrant right subclavian artery = aberrant right subclavian artery arsa
        acute disseminated encephalomyelitis = acute disseminated encephalomyelitis adem
        allergic bronchopulmonary aspergillosis abpa = abpa allergic bronchopulmonary aspergillosis
        arteriovenous malformation = arteriovenous malformation avm
        atrial septal defect = atrial septal defect asd
        central neurocytoma = neurocytoma central neurocytoma
        dnet dysembryoplastic neuroepithelial tumor = dysembryoplastic neuroepithelial tumors dnet
        gastrointestinal stromal tumor = gastrointestinal stromal tumor gist
        glioblastoma multiforme = glioblastoma multiforme gbm = glioblastome multiforme gbm
        herpes simplex encephalitis = herpes simplex encephalitis hse
        juvenile pilocytic astrocytoma = juvenile pilocytic astrocytoma jpa
        medullary sponge kidney = medullary sponge kidney msk
        pulmonary arteriovenous malformation = pulmonary arteriovenous malformation pavm
        tuberous sclerosis complex = tuberous sclerosis complex tsc
        usual interstitial pneumonia = uip usual interstitial pneumonia
        """,
    ("CHEST", ""): """
        right upper lobe = upper right lobe
        left upper lobe = upper left lobe
        right lower lobe = lower right lobe
        in right hilum = right lung hilum
        infiltration = pulmonary infiltration
        """,
    ("ABD", ""): "right lobe = right lobe of liver",
    ("CHEST", "MODALITY"): "xray = xray plain film = xr plain film = chest xray = chest radiograph",
    ("", "MODALITY"): "contrast = with contrast",
    ("", "ORGAN"): "brain = cns",
    ("", "ATTRIB"): """
        ring enhancing = ring enhancing lesion = ring enhancing lesions
        cystic = cystic lesions
        hypodense = hypodense lesion
        """,
}


def _read(text):
    """The groups of a text: a list of sets. A line that begins with "=" goes on with the last."""
    lines = re.sub(r"\s+=", " =", text).strip().splitlines()
    return [{answer.strip() for answer in line.split(" = ")} for line in lines]


EQUAL = [(*condition, group) for condition, text in TABLE.items() for group in _read(text)]
LENGTH = {"groups": len(EQUAL), "answers": len(set().union(*(group for *_, group in EQUAL)))}


def is_equivalent(row, answer):
    """True if an answer to the question of a row of predictions.json counts as its true one."""
    truth = row["truth"]
    return answer == truth or any(
        {answer, truth} <= group
        and organ in ("", row["organ"])
        and (not kind or kind in row["question_types"])
        for organ, kind, group in EQUAL
    )


def add_equivalent(rows):
    """Give rows of predictions.json `equivalent`: 1 where the answer counts as the true one."""
    for row in rows:
        row["equivalent"] = int(is_equivalent(row, row["answer"]))


def equivalent_scores(rows, field="answer"):
    """{"CLOSED" | "OPEN" | "ALL": percent, or None without questions} of the answers in `field`."""
    return percents(rows, lambda row: is_equivalent(row, row[field]))


def equal_pairs(rows):
    """[((answer, truth), times)] of the answers that exact match counts as wrong, most first."""
    pairs = ((row["answer"], row["truth"]) for row in rows if is_equivalent(row, row["answer"]))
    return Counter(pair for pair in pairs if pair[0] != pair[1]).most_common()
